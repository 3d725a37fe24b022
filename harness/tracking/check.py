"""What is wrong in MLflow's database about this store, and what mends it. Nothing is altered, no database is made."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from harness.errors import HarnessError
from harness.files.locks import is_locked
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.store.check import Finding
from harness.texts import counted
from harness.tracking.database import explained, sqlite_path, tracking_failures
from harness.tracking.ledger import Entry
from harness.tracking.places import STORE_TAG, artifacts_folder, connected, statement
from harness.tracking.tracking import Tracking
from harness.urls import masked

MOST_KEYS = 6
_AGAIN = "Move {ledger} away and run `harness sync`: it looks at every run again."
_RUNS = (
    "SELECT runs.run_uuid, runs.status, runs.lifecycle_stage, studies.value, experiments.name FROM runs "
    "JOIN tags AS stores ON stores.run_uuid = runs.run_uuid AND stores.key = :tag AND stores.value = :store "
    "JOIN tags AS studies ON studies.run_uuid = runs.run_uuid AND studies.key = 'harness.study_id' "
    "JOIN experiments ON experiments.experiment_id = runs.experiment_id"
)


def check_tracking(uri: str, cells: Cells, manifests: Iterable[Manifest]) -> Iterator[Finding]:
    """The database can be read; every run that was delivered is there, with its files, and says what is true."""
    path, where = sqlite_path(uri), masked(uri)
    if path is not None and not path.exists():
        if any((cells.root / "cells").glob("*/result.json")):
            yield Finding(where, "is not there.", "`harness sync` makes it from the folder of cells.", is_wrong=False)
        return
    if path is not None and (problem := sqlite_problem(path)):
        yield Finding(where, f"is damaged ({problem}).", "Move it away and run `harness sync`, which makes it again.")
        return
    tracking, known = Tracking(uri, cells.root), tuple(manifests)
    try:
        waiting = {it.id: tracking.pending(it, cells) for it in known}
    except HarnessError as error:
        yield Finding(where, f"what was delivered is not known: {error}", "`harness sync` delivers again.")
        return
    for study_id, number in waiting.items():
        if number:
            yield Finding(
                where, f"{number} events of {study_id} wait.", "`harness sync` delivers them.", is_wrong=False
            )
    yield from _check_lost_cells(tracking, cells, known)
    if not uri.startswith("http"):
        try:
            yield from _check_runs(uri, where, tracking, cells)
        except tracking_failures() as error:
            yield Finding(where, f"cannot be read: {explained(error, uri)}", "Mend that first.")


def sqlite_problem(path: Path) -> str:
    """What SQLite finds wrong with a file, the first line of it; empty where it is sound."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)) as database:
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if answer == "ok" else str(answer).partition("\n")[0]


def _check_runs(uri: str, where: str, tracking: Tracking, cells: Cells) -> Iterator[Finding]:
    ledger = cells.root / "tracking" / "ledger.db"
    again = _AGAIN.format(ledger=ledger)
    with connected(uri) as connection:
        rows = connection.execute(statement(_RUNS), {"tag": STORE_TAG, "store": tracking.store_id}).fetchall()
    there = {run_id: (status, stage, study, name) for run_id, status, stage, study, name in rows}
    stale = Counter(
        study
        for status, stage, study, _ in there.values()
        if (status, stage) == ("RUNNING", "active") and not is_locked(tracking.live_lock(study))
    )
    for study, number in stale.items():
        say, them = ("says", "it") if number == 1 else ("say", "them")
        runs = counted(number, "run")
        yield Finding(
            where, f"{runs} of {study} {say} RUNNING, but nobody works on it.", f"`harness sync` ends {them}."
        )
    lost, empty = Counter[str](), Counter[str]()
    for entry in tracking.delivered():
        _, stage, _, name = there.get(entry.run_id, ("", "", "", ""))
        if stage != "active":
            lost[entry.study_id] += 1
        elif any(not path.exists() for path in _files(entry, name, cells)):
            empty[entry.study_id] += 1
    for study, number in lost.items():
        yield Finding(where, f"{counted(number, 'run')} of {study} {'is' if number == 1 else 'are'} gone.", again)
    for study, number in empty.items():
        yield Finding(
            str(artifacts_folder(cells.root)), f"files of {counted(number, 'run')} of {study} are gone.", again
        )


def _check_lost_cells(tracking: Tracking, cells: Cells, manifests: Collection[Manifest]) -> Iterator[Finding]:
    """Cells whose end was delivered, that a study run names, and of which the store has nothing."""
    named = {it.id: {key for variant in it.variants for key in variant.cells.values()} for it in manifests}
    lost: dict[str, list[str]] = {}
    for entry in tracking.delivered():
        is_named = entry.cell_key in named.get(entry.study_id, ())
        if is_named and entry.end_ms and not cells.folder(entry.cell_key).exists():
            lost.setdefault(entry.study_id, []).append(entry.cell_key)
    for study, keys in lost.items():
        yield Finding(
            str(cells.folder("")),
            f"{counted(len(keys), 'cell')} of {study} had ended and can be found no more: {_listed(keys)}.",
            "Put the folders back from a backup; else the study's command trains these cells again.",
        )


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return ", ".join(keys[:MOST_KEYS]) + more


def _files(entry: Entry, experiment: str, cells: Cells) -> Iterator[Path]:
    """Of a run, where they should be: not those that the store itself has no more, as after `harness gc`."""
    folder = artifacts_folder(cells.root) / experiment / entry.run_id / "artifacts"
    own = cells.folder(entry.cell_key) if entry.cell_key else None
    for name in entry.artifacts:
        if own is None or name in ("settings.json", "traceback.txt", "uncommitted.diff") or (own / name).exists():
            yield folder / name
