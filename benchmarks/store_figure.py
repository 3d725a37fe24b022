"""Commands on a store of 20,000 cells and 300 study runs, delivered to MLflow, and on a study run of 20,000 cells."""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.commands import HARNESS, seconds_of
from benchmarks.growth import MANY_CELLS, MANY_RUNS, write_store
from benchmarks.report import Figure
from benchmarks.sample import Aim, Contender, Line, OnSample, Sample, facts, side_by_side, values
from benchmarks.workload import Request
from harness.store.cells import Cells

SECONDS_TO_SYNC = 60.0
MOST_BYTES = 800_000_000
STUDY = ("--study", "task3")


def measure_store(request: Request, on_sample: OnSample) -> Figure:
    """Each command once a round, start-up included; `--largest` makes the stores smaller."""
    size = min(request.largest, MANY_CELLS)
    runs = max(1, MANY_RUNS * size // MANY_CELLS)
    with tempfile.TemporaryDirectory(dir=request.workload.scratch) as name:
        folder = Path(name)
        many, one = folder / "many", folder / "one"
        write_store(many, size, runs)
        write_store(one, size)
        run = next(iter(Cells(many).manifests()))
        asked = {
            "results --list": (many, ("results", "--list"), 3.0),
            "results of one of the runs": (many, ("results", "--study", run), 5.0),
            "export of one of the runs": (many, ("export", "--study", run, "--table", "cells", "--format", "csv"), 5.0),
            "gc": (many, ("gc",), 10.0),
            "check": (many, ("check",), 30.0),
            "results of the large run": (one, ("results", *STUDY), 5.0),
            "export of the large run": (one, ("export", *STUDY, "--table", "cells", "--format", "csv"), 5.0),
            "report of the large run": (one, ("report", *STUDY, "--output", str(folder / "report")), 30.0),
        }
        contenders = [Contender("sync", "`harness sync`, the first delivery, to SQLite", partial(_synced, many))]
        contenders += [
            Contender(
                name, f"`harness {' '.join(arguments[:2])}`", partial(seconds_of, (*HARNESS, *arguments), store=store)
            )
            for name, (store, arguments, _) in asked.items()
        ]
        contenders.append(Contender("merge", "all of it into an empty store", partial(_merged, many, folder)))
        samples = side_by_side(contenders, request.rounds, on_sample)
        delivered = len(Cells(many).all_keys())
    is_full = size == MANY_CELLS
    bounds = {"sync": SECONDS_TO_SYNC} | {name: seconds for name, (_, _, seconds) in asked.items()}
    aims = {name: Aim("at_most", seconds) for name, seconds in bounds.items()} if is_full else {}
    lines = [Line(it.name, "s", values(samples, it.name), aims.get(it.name)) for it in contenders]
    rates = tuple(delivered / seconds for seconds in values(samples, "sync"))
    lines.append(Line("cells delivered a second", "cells/s", rates))
    peak = max(bytes for it in contenders for bytes in facts(samples, it.name, "peak_rss_bytes"))
    lines.append(Line("most memory of any command", "bytes", (peak,), Aim("at_most", MOST_BYTES)))
    return Figure("store", f"a store of {size:,} cells", lines, contenders, samples)


def _merged(source: Path, folder: Path) -> Sample:
    with tempfile.TemporaryDirectory(dir=folder) as store:
        return seconds_of((*HARNESS, "merge", str(source)), store=Path(store))


def _synced(store: Path) -> Sample:
    """Into a database that is made ready before, as every study does."""
    for path in (*store.glob("mlflow.db*"), *store.glob("tracking/ledger.db*")):
        path.unlink()
    seconds_of((*HARNESS, "init"), store=store)
    return seconds_of((*HARNESS, "sync"), store=store)
