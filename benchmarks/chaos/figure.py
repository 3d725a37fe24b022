"""The figure `chaos`: everything that is tried, and what of it was right."""

import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from benchmarks.chaos.damage import every_damage
from benchmarks.chaos.full_disk import on_a_full_disk
from benchmarks.chaos.fuzz import fuzz
from benchmarks.chaos.kills import chains, kill_again_and_again
from benchmarks.chaos.trial import References, Tried
from benchmarks.chaos.troubles import CLOCKS, clock_moved, server_away, three_drivers
from benchmarks.report import Figure
from benchmarks.sample import Aim, Described, Line, OnSample, Sample
from benchmarks.workload import Request

KILLS, DAMAGES, FUZZED, DRIVERS, FILLS, SERVERS = 200, 60, 1000, 6, 10, 2  # in full
ALL = Aim("at_least", 1)
LONGEST_FUZZED, MOST_BYTES = 10.0, 500_000_000
MEANINGS = {
    "kill": "SIGKILL of a command or a worker, then the same command to its end",
    "damage": "a file of the store damaged, then the same command; where it refuses, again after what it says to do",
    "three drivers": "three commands at once on one store, one stopped for 2 s, one killed",
    "disk full": "the command on a disk too small, then again when there is room",
    "server away": "the MLflow server killed while cells train; `harness sync` when it is back",
    "clock moved": "a command killed, and continued under another time",
    "fuzzed": "a mutated study or command line: exit code 0 or 2, no traceback, 10 s and 500 MB at most",
}


def measure_chaos(request: Request, on_sample: OnSample) -> Figure:
    """The reliability trial; `--kills` scales all of it."""
    scratch = request.workload.scratch / "chaos"
    scratch.mkdir()
    found = [*_fuzzed(_share(request.kills, FUZZED), scratch), *_troubled(request, scratch, on_sample)]
    for it in found:
        if it.what == "fuzzed" and not it.is_right:
            on_sample(f"{it.what}: {it.how}", Sample(0.0))
    samples = {what: [_sample(it) for it in found if it.what == what] for what in MEANINGS}
    described = [Described(what, meaning) for what, meaning in MEANINGS.items() if samples[what]]
    by_name = {it.name: [one for one in found if one.what == it.name] for it in described}
    lines = list(chain.from_iterable(_lines(*it) for it in by_name.items()))
    hits = Counter(it.how.rpartition(": ")[2] for it in found if it.what == "kill")
    lines += [Line(f"kills that hit {phase}", "kills", (float(count),)) for phase, count in hits.items()]
    return Figure("chaos", "the reliability trial", lines, described, samples)


def _share(kills: int, full: int) -> int:
    return max(1, round(full * kills / KILLS))


def _troubled(request: Request, scratch: Path, on_sample: OnSample) -> Iterator[Tried]:
    """As many at a time as the request has processes."""
    references, kills = References(scratch), request.kills
    whole = references()
    size = sum(it.stat().st_size for it in whole.store.rglob("*") if it.is_file())
    fills = _share(kills, FILLS)

    def full(number: int) -> list[Tried]:
        tried = on_a_full_disk(int(size * (number + 0.5) / fills), scratch / f"full-{number}", whole)
        return [] if tried is None else [tried]

    jobs: list[Callable[[], Sequence[Tried]]] = [
        *(lambda it=it: kill_again_and_again(it, scratch, references) for it in chains(kills)),  # type: ignore[misc]
        *(lambda it=it: [it()] for it in every_damage(_share(kills, DAMAGES), scratch, references)),  # type: ignore[misc]
        *(lambda it=it: [three_drivers(it, scratch, references)] for it in range(_share(kills, DRIVERS))),  # type: ignore[misc]
        *(lambda it=it: [clock_moved(it, scratch, references)] for it in list(CLOCKS)[: _share(kills, len(CLOCKS))]),  # type: ignore[misc]
        *(lambda it=it: full(it) for it in range(fills)),  # type: ignore[misc]
    ]
    with ThreadPoolExecutor(request.processes) as pool:
        for tried in pool.map(lambda job: job(), jobs):
            for it in tried:
                on_sample(f"{it.what}: {it.how}", _sample(it))
            yield from tried
    for number in range(_share(kills, SERVERS)):  # servers are started by the main thread alone
        it = server_away(number, scratch, references)
        on_sample(f"{it.what}: {it.how}", _sample(it))
        yield it


def _fuzzed(count: int, scratch: Path) -> Iterator[Tried]:
    before, here = _peak_bytes(), Path.cwd()
    folder = scratch / "fuzzed"
    folder.mkdir()
    os.chdir(folder)
    try:
        for it in fuzz(count):
            is_quick = it.seconds <= LONGEST_FUZZED and _peak_bytes() - before <= MOST_BYTES
            said = "" if it.is_refused_well and is_quick else repr(it)
            yield Tried("fuzzed", " ".join(it.arguments), is_quick, tracebacks=not it.is_refused_well, said=said)
    finally:
        os.chdir(here)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _sample(tried: Tried) -> Sample:
    facts = {"how": tried.how, "said": tried.said[-2000:]} if tried.what != "fuzzed" or not tried.is_right else {}
    return Sample(float(tried.is_right), facts)


def _lines(what: str, tried: Sequence[Tried]) -> Iterator[Line]:
    none, share = Aim("at_most", 0), sum(it.is_same for it in tried) / len(tried)
    yield Line(f"{what}: tried", "", (float(len(tried)),))
    yield Line(f"{what}: {'refused in time' if what == 'fuzzed' else 'same table to the bit'}", "share", (share,), ALL)
    yield Line(f"{what}: results written twice", "", (float(sum(it.twice for it in tried)),), none)
    yield Line(f"{what}: runs left RUNNING", "", (float(sum(it.running for it in tried)),), none)
    yield Line(f"{what}: tracebacks", "", (float(sum(it.tracebacks for it in tried)),), none)
