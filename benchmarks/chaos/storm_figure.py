"""The figure `storms`: a study on a Ray cluster whose nodes and driver are troubled, and what of it was right."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from benchmarks.chaos.storms import STUDIES, Stormed, Untroubled, storm
from benchmarks.report import Figure
from benchmarks.sample import Aim, Described, Line, OnSample, Sample
from benchmarks.workload import Request

MEANINGS = {
    "own": "the study of the reliability trial, whose training counts its own ends",
    "digits": "`examples/digits`, a function of the user's that is edited while it trains",
    "script": "`examples/script`, a script of the user's that is edited while it trains",
}
SHARE = 5  # one storm of each example for so many of `own`


def measure_storms(request: Request, on_sample: OnSample) -> Figure:
    """As many storms of `own` as asked for, and a fifth as many of each example."""
    scratch = request.workload.scratch / "storms"
    scratch.mkdir()
    untroubled = Untroubled(scratch, request.storm_cells)
    found: dict[str, list[Stormed]] = {}
    for name, study in STUDIES.items():
        count = request.storms if name == "own" else max(1, request.storms // SHARE)
        for number in range(count):
            stormed = storm(study, number, request.storm_cells, scratch, untroubled)
            found.setdefault(name, []).append(stormed)
            on_sample(f"{name}, storm {number}: {stormed.order}", _sample(stormed))
    lines = [line for name in found for line in _lines(name, found[name])]
    described = [Described(name, MEANINGS[name]) for name in found]
    samples = {name: [_sample(it) for it in found[name]] for name in found}
    return Figure("storms", "storms on a Ray cluster of three nodes", lines, described, samples)


def _sample(stormed: Stormed) -> Sample:
    return Sample(float(stormed.is_right), {name: it for name, it in asdict(stormed).items() if name != "study"})


def _lines(name: str, storms: Sequence[Stormed]) -> Iterator[Line]:
    none = Aim("at_most", 0)
    counted = {
        "cells with two ends": sum(it.twice for it in storms),
        "runs left RUNNING, or twice": sum(it.running for it in storms),
        "cells that failed": sum(it.failed for it in storms),
        "tracebacks": sum(it.tracebacks for it in storms),
        "lines of Ray's own": sum(it.noise for it in storms),
    }
    yield Line(f"{name}: storms", "", (float(len(storms)),))
    same = sum(it.is_same for it in storms) / len(storms)
    yield Line(f"{name}: same table to the bit", "share", (same,), Aim("at_least", 1))
    for what, count in counted.items():
        yield Line(f"{name}: {what}", "", (float(count),), none)
    heard = [it.lost for it in storms if it.lost is not None]
    if heard:
        yield Line(f"{name}: trained to the end again, nobody having heard of it", "cells", (float(sum(heard)),))
    yield Line(f"{name}: attempts that went on from a checkpoint", "", (float(sum(it.resumed for it in storms)),))
    yield Line(f"{name}: a storm", "s", tuple(it.seconds for it in storms))
