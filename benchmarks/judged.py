"""The figure `judged`: `harness judge` itself over streams of 300 proposals, by a training that costs nothing; what the
figure `streams` says of its rule holds for what it does.

Every proposal is a command line, read and carried out by the command in this process (to start one for each would take
longer than to judge), and its verdict is what `--json` prints and what the exit code says: planned, trained seed by
seed in a store by a worker process, looked at after each seed, written into its line, promoted. The training draws a
number around the sum of the effects that it is told. That takes about a second a proposal, so that these streams are
few; the same numbers are therefore judged a second time by the functions that the long simulation uses, and a verdict
that differs is counted.
"""

import contextlib
import io
import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Figure
from benchmarks.sample import Aim, Line, OnSample, Sample
from benchmarks.workload import Request
from harness.api.judging import FRESH, LEAST_ROOM, ROOM
from harness.cli import cli
from harness.cli.judge import EXIT_CODES
from harness.stats.online import elond_level, judge_improvements, least_seeds
from harness.store.lines import Lines

HELPS, HURTS = 0.10, 0.15  # shares of all proposals; the rest does nothing
MDE = 0.5  # of `judge`, in sd of one run
LENGTH = 300  # proposals of a stream
PART = 30  # at both ends of a stream, whose time is compared
ALPHA = 0.2  # declared: at less, streams keep too little to show anything
NAMES = ("value", "proposal")  # settings
STUDY = """\
name: judged
trainer: {function: "training:train"}
metrics: {val/score: {goal: maximize}, test/score: {goal: maximize}}
select: val/score
report: test/score
baseline: {value: 0.0, proposal: 0}
changes: []
profiles: {standard: {seeds: 2}}
"""
TRAINING = """\
import random

def train(run):
    score = run.settings.value + random.Random(f"{run.seed} {run.settings.proposal}").gauss(0, 1)
    run.log(1, **{"val/score": score})
    run.finish(**{"test/score": score})
"""


def measure_judged(request: Request, on_sample: OnSample) -> Figure:
    """False discovery rate of the command over so many proposals, and what one takes."""
    lines = judged_streams(request.proposals, request.workload.scratch / "judged", on_sample)
    return Figure("judged", "`harness judge` itself over streams of proposals that cost nothing", lines, [], {})


def judged_streams(count: int, folder: Path, on_sample: OnSample) -> list[Line]:
    """In every second stream nothing helps, in the others effects are of 1."""
    shares, num_kept, num_differ, num_cells, first, last = [], 0, 0, 0, [], []
    streams, length = max(1, round(count / LENGTH)), min(count, LENGTH)
    for index in range(streams):
        useless, kept, differ, cells, seconds = _stream(index, length, folder / f"stream-{index}")
        shares.append(useless / kept if kept else 0.0)
        num_kept, num_differ, num_cells = num_kept + kept, num_differ + differ, num_cells + cells
        first, last = [*first, *seconds[:PART]], [*last, *seconds[-PART:]]
        on_sample(f"judged by the command: stream {index + 1} of {streams}", Sample(shares[-1]))
    bound = round(ALPHA + 3 * float(np.sqrt(ALPHA * (1 - ALPHA) / streams)), 4)
    name = f"by the command, {streams} streams of {length}, declared {ALPHA}"
    return [
        Line(f"error, {name}", "share", (float(np.mean(shares)),), Aim("at_most", bound)),
        Line(f"error, {name}: kept", "a stream", (num_kept / streams,)),
        Line(f"error, {name}: other verdicts than the functions'", "proposals", (num_differ,), Aim("at_most", 0)),
        Line(f"error, {name}: cells", "trained", (num_cells,)),
        Line(f"time of a proposal, the first {PART} of a stream", "s", (float(np.mean(first)),)),
        Line(f"time of a proposal, the last {PART} of a stream", "s", (float(np.mean(last)),)),
    ]


def _stream(index: int, length: int, folder: Path) -> tuple[int, int, int, int, list[float]]:
    """How many useless proposals and how many at all were kept, how many verdicts differ, how many cells it took, and
    the processor time of each proposal."""
    folder.mkdir(parents=True)
    (folder / "judged.yaml").write_text(STUDY)
    (folder / "training.py").write_text(TRAINING)
    dice = random.Random(index)
    held, first, useless, kept, differ, cells = (0.0, 0), 0, 0, 0, 0, 0
    seconds = []
    for number in range(1, length + 1):
        effect = _effect(dice, 0.0 if index % 2 == 0 else 1.0)
        proposed = (held[0] + effect, number)
        began = time.perf_counter()
        found = _judge(folder, *(f"--set={name}={value!r}" for name, value in zip(NAMES, proposed, strict=True)))
        seconds.append(time.perf_counter() - began)
        level = elond_level(ALPHA, number, kept)
        most = max(LEAST_ROOM, ROOM * least_seeds(level))
        numbers = [_score(seed, *proposed) - _score(seed, *held) for seed in range(first, first + most)]
        expected = judge_improvements(np.array(numbers), level, most=most, smallest=MDE)
        verdict = found["verdict"]
        differ += (verdict, found["reason"], found["num_seeds"]) != (
            expected.verdict,
            expected.reason,
            expected.num_seeds,
        )
        cells += found["cells_trained"] + FRESH * (verdict == "keep")
        if verdict == "keep":
            useless, kept = useless + (effect <= 0), kept + 1
            line = Lines(folder / "mlruns").read(found["line"])
            assert line is not None
            held, first = proposed, line.champion.first_seed
    return useless, kept, differ, cells, seconds


def _judge(folder: Path, *options: str) -> Mapping[str, Any]:
    """What the command prints of a proposal."""
    study, store = str(folder / "judged.yaml"), str(folder / "mlruns")
    asked = ("--study", study, "--store", store, "--device", "cpu", "--jobs", "1", "--promote", "--json")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        words = ["judge", *asked, "--alpha", str(ALPHA), "--mde", str(MDE), *options]
        code = cli.main(words, prog_name="harness", standalone_mode=False)
    found: Mapping[str, Any] = json.loads(printed.getvalue())
    assert code == EXIT_CODES[found["verdict"]], (words, code)
    return found


def _effect(dice: random.Random, size: float) -> float:
    """Of the world of `streams`."""
    kind, drawn = dice.random(), size * dice.uniform(0.5, 1.5)
    return drawn if kind < HELPS else -drawn if kind < HELPS + HURTS else 0.0


def _score(seed: int, value: float, proposal: int) -> float:
    """The number that the training draws."""
    return value + random.Random(f"{seed} {proposal}").gauss(0, 1)
