"""Studies with training of the user's own, written into a folder: the same training as a function and as a script."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

from harness.api.work import Work, plan_work, prepare
from harness.execution.runner import run
from harness.store.result import Result

METRICS = {"val/score": {"goal": "maximize"}, "test/score": {"goal": "maximize", "unit": "percent"}}
STUDY: dict[str, Any] = {
    "metrics": METRICS,
    "select": "val/score",
    "report": "test/score",
    "baseline": {"rate": 0.5, "steps": 4, "model": {"width": 8}, "flag": False, "never": 1},
    "changes": [
        {"name": "wide", "overrides": {"model.width": 16}},
        {"name": "flagged", "overrides": {"flag": True}},
        {"name": "ignored", "overrides": {"never": 2}},
    ],
    "profiles": {"standard": {"seeds": 2}},
}

# A random walk with momentum, whose state is in the checkpoint; `never` is read by nobody.
FUNCTION = """
import json
import random
import time

import harness
import mathematics

def train(run: harness.Run) -> None:
    s = run.settings
    state = json.loads(run.saved().read_text()) if run.saved() else {"step": 0, "score": 0.0}
    for step in range(state["step"] + 1, s.steps + 1):
        draw = random.Random(run.seed_for("draw", step)).random()
        state = {"step": step, "score": mathematics.advance(state["score"], draw, s.rate, s.model.width, s["flag"])}
        run.log(step, **{"val/score": state["score"]})
        with run.saving() as path:
            path.write_text(json.dumps(state))
        time.sleep(PAUSE)
    run.finish(**{"test/score": state["score"] / 10})
"""

SCRIPT = """
import argparse, json, os, random, sys, time
from pathlib import Path

import mathematics

parser = argparse.ArgumentParser()
for name, kind in {"rate": float, "width": int, "flag": str, "steps": int, "seed": int}.items():
    parser.add_argument(f"--{name}", type=kind)
s = parser.parse_args()
folder = Path(os.environ["HARNESS_FOLDER"])

def tell(line):
    with open(os.environ["HARNESS_METRICS"], "a") as file:
        file.write(json.dumps(line) + "\\n")

print("starting", s)
saved = folder / "state.json"
state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "score": 0.0}
for step in range(state["step"] + 1, s.steps + 1):
    draw = random.Random(f"{s.seed}-{step}").random()
    state = {"step": step, "score": mathematics.advance(state["score"], draw, s.rate, s.width, s.flag == "true")}
    tell({"step": step, "val/score": state["score"]})
    (folder / "new").write_text(json.dumps(state))
    (folder / "new").replace(saved)
    tell({"checkpoint": "state.json"})
    time.sleep(PAUSE)
tell({"final": True, "test/score": state["score"] / 10})
"""

# The same, but with the handle that a function gets.
HANDLED = """
import harness
from training import train

train(harness.current_run())
"""

HELPER = """
def advance(score, draw, rate, width, flag):
    return score * 0.9 + rate * draw * width / 8 + (0.25 if flag else 0)
"""

COMMAND = ["python", "script.py", "--rate", "{rate}", "--width", "{model.width}", "--flag={flag}", "--steps", "{steps}"]
TRAINERS: dict[str, dict[str, Any]] = {
    "function": {"function": "training:train"},
    "script": {"command": [*COMMAND, "--seed", "{seed}"]},
    "handled": {"command": ["python", "handled.py"]},
}


def write_study(
    folder: Path, kind: str = "function", *, function: str = "", script: str = "", pause: float = 0.0, **study: Any
) -> Path:
    """A study of one kind of `TRAINERS` and its code in a folder; the path of its file.

    Args:
        function, script: in place of the code that there is. study: keys over those of `STUDY`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    code = {
        "training.py": function or FUNCTION,
        "script.py": script or SCRIPT,
        "handled.py": HANDLED,
        "mathematics.py": HELPER,
    }
    for name, text in code.items():
        (folder / name).write_text(dedent(text).replace("PAUSE", str(pause)))
    path = folder / "own.yaml"
    path.write_text(json.dumps({**STUDY, "trainer": TRAINERS[kind], **study}))  # JSON is YAML
    return path


def train_study(path: Path, store: Path, **request: Any) -> tuple[Work, Mapping[tuple[str, int], Result]]:
    """Trains every cell of a study in this process; results by variant and seed."""
    work = plan_work(path, store=store, device="cpu", **request)
    prepare(work, work.plan.cells)
    run(work.plan.cells, work.cells, devices=["cpu"], provenance={}, executor="here")
    return work, results_of(work)


def results_of(work: Work) -> dict[tuple[str, int], Result]:
    found = {(it.name, cell.seed): work.cells.result(cell.key) for it in work.plan.variants for cell in it.cells}
    return {place: result for place, result in found.items() if result}


def start_study(path: Path, store: Path) -> "subprocess.Popen[bytes]":
    """`train_study` in a process of its own."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); from own import train_study; "
        "train_study(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", code, str(path), str(store), str(Path(__file__).parent)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
