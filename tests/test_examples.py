"""Each example, as a person would use it: its two files in a folder of its own, and nothing but commands."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from commands import harness
from schemas import fitting

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
# Example -> the resume that `harness try` finds, the change that is the best by far, and how much of the study is run.
FOUND: dict[str, tuple[str, str, list[str]]] = {
    "digits": ("identical", "fast", []),
    "script": ("identical", "longer", ["--only", "slow,longer", "--seeds", "2"]),  # a cell imports PyTorch: seconds
    "regression": ("starts again", "second-harmonic", []),
    "airbench": ("identical", "dirac", ["--only", "dirac,alternating-flip", "--seeds", "2"]),
    # A cell imports a framework: seconds.
    "lightning": ("identical", "fast", ["--only", "fast,no-dropout", "--seeds", "2"]),
    "transformers": ("identical", "fast", ["--only", "fast,no-dropout", "--seeds", "2"]),
}
MINIMIZED = {"regression", "transformers"}
KINDS = {"digits", "script", "regression"}  # of training; a search knows no others
FRAMEWORKS = {"lightning", "transformers"}  # need an extra of their name


def skip_without(name: str) -> None:
    if name in FRAMEWORKS:
        pytest.importorskip(name)


class Folder:
    """An example's files outside the repository."""

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / name
        shutil.copytree(EXAMPLES / name, self.path)
        self.name = name

    def run(self, command: str, *arguments: str, study: bool = True) -> "subprocess.CompletedProcess[str]":
        named = ["--study", f"{self.name}.yaml"] if study else []
        environment = {"HARNESS_CACHE": str(self.path / "cache"), "COLUMNS": "200"}
        done = harness(command, *named, *arguments, cwd=self.path, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def test_every_example_is_tested():
    made = {"loop"}  # a script that writes a repository: tests/test_loop_example.py
    assert set(FOUND) | made == {path.name for path in EXAMPLES.iterdir() if path.is_dir()}


@pytest.mark.ordeal
@pytest.mark.parametrize("name", FOUND)
def test_an_example_works_from_a_fresh_folder(tmp_path, name):
    skip_without(name)
    folder, (resume, best, part) = Folder(tmp_path, name), FOUND[name]
    assert len(list(folder.path.iterdir())) == 2

    tried = fitting("try", folder.run("try", f"{name}.yaml", "--json", study=False).stdout)
    assert (tried["resume"], tried["repeat_difference"], tried["ignores_seed"]) == (resume, 0.0, False)
    assert tried["unread"] == tried["unseen"] == []

    alone = ["--jobs", "1"] if name in FRAMEWORKS else []  # each worker would import the framework
    quick = ["--profile", "quick", *alone, *part]
    table = folder.run("ablate", *quick).stdout
    folder.run("export", "--table", "effects", "--output", "effects.csv")
    folder.run("report", "--output", "report")
    cells = fitting("results", folder.run("results", "--json").stdout)["cells"]
    log = folder.run("logs", cells[0]["key"], study=False).stdout

    rows = [line.split()[0] for line in table.split("verdict\n")[1].splitlines() if "/" in line]
    assert rows[:2] == ["baseline", best]
    effects = pd.read_csv(folder.path / "effects.csv")
    assert effects["variant"].iloc[0] == best
    assert (effects["mean"].iloc[0] > 0) == (name not in MINIMIZED)  # of an error, less is better
    assert (folder.path / "report" / "report.html").stat().st_size > 10_000
    assert "finished" in log
    if name in KINDS:
        searched = fitting("search", folder.run("search", *quick, "--trials", "4", "--json").stdout)
        assert searched["biggest"]["over_the_baseline"]["change"] == best
    if name in KINDS - {"script"}:  # fourteen cells more
        confirmed = folder.run("confirm", "--profile", "quick", "--seeds", "7", "--variant", best).stdout
        assert "onfirm" in confirmed
        assert name != "regression" or "accuracy" not in table + confirmed + log


def processes_of(parent: int) -> list[int]:
    """A process and all that descend from it, as /proc tells: workers and scripts among them."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [parent]
    for process in found:
        found += children.get(process, [])
    return found


@pytest.mark.ordeal
@pytest.mark.parametrize(("name", "times", "delay"), [("digits", 10, 1.6), ("script", 4, 5.0)])
def test_an_example_killed_at_random_ends_with_the_table_of_an_uninterrupted_run(tmp_path, name, times, delay):
    """Whichever process is hit, the command, a worker or a script: the same command goes on from what is left. (That a
    framework's checkpoint is taken up again to the bit is what `try` finds above.)"""
    straight, killed = Folder(tmp_path / "straight", name), Folder(tmp_path / "killed", name)
    part = ["--profile", "quick", "--set", "epochs=40", *FOUND[name][2]]
    expected = straight.run("ablate", *part, "--json").stdout
    chance, num_hits = random.Random(0), 0
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "ablate", "--study", f"{name}.yaml", *part],
            cwd=killed.path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay * chance.uniform(0.5, 1.5))
        victim = chance.choice(processes_of(process.pid))
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            num_hits += 1
        process.wait(120)
    found = killed.run("ablate", *part, "--json").stdout

    assert num_hits == times
    assert numbers(found) == numbers(expected)


def numbers(answer: str) -> list[dict[str, object]]:
    """What `ablate --json` says of effects, without what two runs may differ in: the time that they took."""
    timed = ("seconds", "cost")
    effects = json.loads(answer)["effects"]
    return [{name: it for name, it in row.items() if not any(word in name for word in timed)} for row in effects]
