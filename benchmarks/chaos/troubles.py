"""Several drivers on one store, one of them paused and one killed; a server that goes away; a clock that is moved."""

import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from benchmarks.chaos.trial import References, Tried, new_trial, until
from harness.services import free_port, mlflow_server, running

PAUSED_SECONDS = 2.0
CLOCKS = {"a day back": -86_400, "ten years back": -315_360_000, "a day ahead": 86_400}  # seconds

# Python imports `sitecustomize` at its start, in workers, too. The type `datetime` cannot be replaced, for compiled
# modules hold it; what the harness asks for the time of its journals can.
SHIFTED_CLOCK = """
import importlib.machinery, sys, time
SHIFT = {shift}
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + SHIFT
time.time_ns = lambda: _time_ns() + SHIFT * 1_000_000_000

class Clock:
    @staticmethod
    def now(tz):
        from datetime import datetime
        return datetime.fromtimestamp(time.time(), tz)

class Shifting:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "harness.store.journal":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def shifted(module):
            execute(module)
            module.datetime = Clock
        spec.loader.exec_module = shifted
        return spec

sys.meta_path.insert(0, Shifting)
"""


def three_drivers(number: int, scratch: Path, references: References) -> Tried:
    """Three commands at once: one is stopped for a while and goes on, one is killed."""
    trial = new_trial(scratch / f"drivers-{number}")
    whole, paused, killed = (trial.start(pause=0.1) for _ in range(3))
    until(lambda: any(trial.phases.iterdir()))
    time.sleep(0.3 * (number % 4))
    os.killpg(paused.pid, signal.SIGSTOP)
    killed.kill()
    time.sleep(PAUSED_SECONDS)
    os.killpg(paused.pid, signal.SIGCONT)
    trial.wait(killed)
    codes = [trial.wait(whole), trial.wait(paused), trial.run()]
    return trial.judged("three drivers", f"{number}", references(), is_same=codes == [0, 0, 0])


def server_away(number: int, scratch: Path, references: References) -> Tried:
    """The tracking server is killed while cells train, and comes back after the command has ended."""
    served = scratch / f"server-{number}"
    shutil.copytree(references().store, served, ignore=shutil.ignore_patterns("cells", "studies", "tracking"))
    with closing(sqlite3.connect(served / "mlflow.db")) as database:
        (before,) = database.execute("SELECT count(*) FROM runs").fetchone()
    port = free_port(0)
    service = mlflow_server(f"sqlite:///{served / 'mlflow.db'}", served, port)
    trial = new_trial(scratch / f"away-{number}", MLFLOW_TRACKING_URI=service.address)
    with running([service]):
        process = trial.start(pause=0.1)
        until(lambda: any(trial.phases.iterdir()))
    codes = [trial.wait(process)]
    with running([service]):
        codes.append(trial.run("sync"))
    with closing(sqlite3.connect(served / "mlflow.db")) as database:
        (now,) = database.execute("SELECT count(*) FROM runs").fetchone()
        (left,) = database.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()
    is_same = codes == [0, 0] and now == 2 * before
    judged = trial.judged("server away", f"{number}", references(), is_same=is_same)
    return Tried("server away", f"{number}", judged.is_same, judged.twice, left, judged.tracebacks, judged.said)


def clock_moved(name: str, scratch: Path, references: References) -> Tried:
    """The command is killed, and goes on when the clock says something else."""
    trial = new_trial(scratch / f"clock-{name}".replace(" ", "-"))
    process = trial.start()
    until(lambda: any(trial.phases.iterdir()))
    time.sleep(0.3)
    process.kill()
    trial.wait(process)
    (trial.folder / "clock").mkdir()
    (trial.folder / "clock" / "sitecustomize.py").write_text(SHIFTED_CLOCK.format(shift=CLOCKS[name]))
    path = os.pathsep.join([str(trial.folder / "clock"), os.environ.get("PYTHONPATH", "")])
    code = trial.run(PYTHONPATH=path)
    journals = "".join(it.read_text() for it in trial.store.glob("cells/*/journal.jsonl"))
    days = {line.partition('"time": "')[2][:10] for line in journals.splitlines()}
    assert code or len(days) > 1, "the clock was not moved"
    return trial.judged("clock moved", name, references(), is_same=code == 0)
