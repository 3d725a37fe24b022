"""Several processes that search on one storage: no cell trained twice, every trial ended, also when one is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy
from optuna.trial import TrialState
from postgresql import postgresql_url
from searched import num_calls, plan_of

from harness.search.space import Space
from harness.search.storage import open_storage, open_study, resolve_storage
from harness.search.trials import known_combinations
from harness.store.cells import Cells

pytestmark = pytest.mark.slow

NUM_TRIALS = 14

SEARCH = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3].split(":")
import searched
from harness.store.cells import Cells
from harness.search.run import search
if __name__ == "__main__":
    answer = search(
        searched.plan_of(trainer=sys.argv[5]), Cells(Path(sys.argv[1])),
        storage=sys.argv[2], num_trials=int(sys.argv[4]), devices=["cpu"], provenance={},
    )
    print(answer.best.name)
"""


@pytest.fixture(scope="module")
def server():
    with postgresql_url() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return resolve_storage(f"sqlite:///{tmp_path}/optuna.db", tmp_path)
    server = request.getfixturevalue("server")
    name = f"search_{time.monotonic_ns()}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    return server.rpartition("/")[0] + f"/{name}"


@pytest.fixture
def start(url, tmp_path):
    """Starts a process that searches; none outlives its test."""
    started = []

    def one(trainer):
        started.append(_start(tmp_path, url, trainer))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.communicate()


def _start(tmp_path, url, trainer):
    script = tmp_path / "search.py"
    script.write_text(SEARCH)
    command = [sys.executable, str(script), str(tmp_path / "mlruns"), url, str(Path(__file__).parent)]
    command += [str(NUM_TRIALS), trainer]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.strip()


def trials_of(url):
    with open_storage(url) as (storage, locks), locks.exclusive():
        return open_study(storage, Space.of(plan_of())).get_trials()


def tried(trials):
    space = Space.of(plan_of())
    counted = [trial for trial in trials if not trial.user_attrs["why"].startswith("the best without")]
    return known_combinations(counted, space)


@pytest.mark.ordeal
def test_two_processes_share_a_search(start, url, tmp_path):
    both = [start("Slow") for _ in range(2)]
    answers = [finish(process) for process in both]

    trials = trials_of(url)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(tried(trials)) == NUM_TRIALS
    combinations = [tuple(trial.params.items()) for trial in trials]
    assert len(set(combinations)) == len(combinations)
    assert len({trial.user_attrs["worker"] for trial in trials}) == 2
    assert set(num_calls(Cells(tmp_path / "mlruns")).values()) == {1}
    assert answers[0] == answers[1]


@pytest.mark.ordeal
def test_the_trial_of_a_killed_process_is_retried_by_the_other(start, url, tmp_path):
    killed, other = [start("WhenTold") for _ in range(2)]
    number = wait_until_it_works(killed, url)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    (tmp_path / "mlruns").mkdir(exist_ok=True)
    (tmp_path / "mlruns" / "go").touch()
    finish(other)

    trials = trials_of(url)
    states = Counter(trial.state for trial in trials)
    assert states[TrialState.RUNNING] == states[TrialState.WAITING] == 0
    assert trials[number].state == TrialState.FAIL
    retries = [trial for trial in trials if trial.user_attrs.get("retry of trial") == number]
    assert [trial.params for trial in retries] == [trials[number].params]
    assert retries[0].state == TrialState.COMPLETE
    assert len(tried(trials)) == NUM_TRIALS
    assert set(num_calls(Cells(tmp_path / "mlruns")).values()) == {1}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_an_interrupted_process_gives_its_trials_back_and_its_workers_end(start, url, tmp_path):
    process = start("WhenTold")
    number = wait_until_it_works(process, url)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)

    trials = trials_of(url)
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    retries = [trial for trial in trials if trial.user_attrs.get("retry of trial") == number]
    assert [(trial.state, trial.system_attrs["fixed_params"]) for trial in retries] == [
        (TrialState.WAITING, trials[number].params)
    ]
    cells = Cells(tmp_path / "mlruns")
    assert not any(cells.is_claimed(folder.name) for folder in cells.root.glob("cells/*"))


def wait_until_it_works(process, url):
    """The number of a trial that this process has in hand."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for trial in trials_of(url):
            if trial.state == TrialState.RUNNING and f"-{process.pid}-" in trial.user_attrs.get("worker", ""):
                return trial.number
        time.sleep(0.05)
    raise AssertionError("it took up no trial")
