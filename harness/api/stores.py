"""Stores that are kept: packed, merged, checked, and freed of what nobody needs."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, ResultsError, StoreError
from harness.files.locks import trying
from harness.names import suggestion
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.store.check import Finding, check_cells, check_lines, check_manifests, check_snapshots
from harness.store.journal import writing
from harness.store.lines import Lines
from harness.store.merge import Merged, merge
from harness.store.pack import Packed, write_pack
from harness.store.unused import UNUSED, Garbage, free, manifests_set_aside, named_keys
from harness.store.usage import cell_usage


def pack(
    study: str, output: Path, *, store: str | Path = "mlruns", with_weights: bool = False, with_code: bool = True
) -> Packed:
    """Writes a study's runs and their ended cells into one file.

    Args:
        study: a name, for all of its study runs and their confirmations; or the id of one, for it and its own.

    Raises:
        ResultsError: there is no such study run. StoreError, OutputError: as `write_pack`.
    """
    cells = Cells(Path(store).absolute())
    return write_pack(cells, study_runs(cells, study), output, with_weights=with_weights, with_code=with_code)


def merge_into(source: Path, *, store: str | Path = "mlruns") -> Merged:
    """Brings a pack's or another store's cells and study runs into a store; `harness sync` then delivers to MLflow.

    Raises:
        StoreError: as `harness.store.merge.merge`.
    """
    return merge(Cells(Path(store).absolute()), source)


def study_runs(cells: Cells, study: str) -> list[Manifest]:
    """All study runs of a study, the oldest first, or the one with that id; and the confirmations of their winners.

    Raises:
        ResultsError: there is none.
    """
    manifests = cells.manifests()
    chosen = {it.id for it in manifests.values() if study in (it.id, it.study)}
    if not chosen:
        known = sorted({it.study for it in manifests.values()})
        listed = f"There is: {', '.join(manifests)}." if manifests else "There is no study run at all."
        hint = suggestion(study, [*known, *manifests])
        raise ResultsError(f"{cells.root}: no study run of {study!r}.{hint} {listed} --store names another folder.")
    return [it for it in manifests.values() if {it.id, it.confirms, it.belongs_to} & {*chosen}]


@dataclass(frozen=True)
class Deletion:
    """What the deletion of a study takes away.

    Attributes:
        manifests: its study runs. keys: cells that no other study run names. num_bytes: of these.
        searches: names of Optuna studies.
    """

    cells: Cells
    manifests: Sequence[Manifest]
    keys: Sequence[str]
    num_bytes: int
    searches: frozenset[str]


def deletion(study: str, *, store: str | Path = "mlruns") -> Deletion:
    """What `delete` would take away.

    Args:
        study: as for `pack`.

    Raises:
        ResultsError: there is no such study run.
        StoreError: another study run cannot be read, so it is not known which cells it needs.
    """
    cells = Cells(Path(store).absolute())
    manifests = study_runs(cells, study)
    keys = _keys_of_these_alone(cells, {it.id for it in manifests})
    searches = {variant.tags.get("harness.search", "") for it in manifests for variant in it.variants} - {""}
    return Deletion(cells, manifests, keys, sum(cell_usage(cells, key).total for key in keys), frozenset(searches))


def _keys_of_these_alone(cells: Cells, ids: Collection[str]) -> list[str]:
    """Cells that these study runs name, and no other one, nor a damaged one that was set aside.

    Raises:
        StoreError: a study run cannot be read.
    """
    named_keys(cells)  # raises where one cannot be read
    if manifests_set_aside(cells):
        return []
    ours, others = set[str](), set[str]()
    for it in cells.manifests().values():
        (ours if it.id in ids else others).update(key for variant in it.variants for key in variant.cells.values())
    return sorted(key for key in ours - others if cells.folder(key).is_dir())


def lines_of(cells: Cells, manifests: Sequence[Manifest]) -> list[str]:
    """Names of the lines of champions that belong to study runs; of a damaged one, by its name alone."""
    lines, ids = Lines(cells.root), {it.id for it in manifests}

    def run_of(name: str) -> str:
        try:
            found = lines.read(name)
        except StoreError:
            return ""
        return found.study_run if found else ""

    return [name for name in lines.names() if {name, run_of(name)} & ids]


def delete(what: Deletion) -> None:
    """Deletes study runs from MLflow, Optuna and the store, with the cells that no other study run names by now.

    It can be repeated where it was cut off: manifests go before the cells; those that are left `harness gc` frees. Who
    begins to work on one of these study runs, or to judge in a line of theirs, waits until it is over.

    Raises:
        StoreError: a process works on one of them, or judges; nothing was deleted. TrackingError: a database cannot be
            used.
    """
    from harness.search.check import delete_searches
    from harness.search.storage import resolve_storage
    from harness.tracking import Tracking, resolve_uri

    cells, lines = what.cells, Lines(what.cells.root)
    tracking = Tracking(resolve_uri(None, cells.root), cells.root)
    with ExitStack() as holding:
        names = lines_of(cells, what.manifests)
        for name in names:
            holding.enter_context(lines.judging(name, waits=False))
        for manifest in what.manifests:
            holding.enter_context(_alone(tracking.live_lock(manifest.id)))
        keys = _keys_of_these_alone(cells, {it.id for it in what.manifests})
        if busy := [key for key in keys if cells.is_claimed(key)]:
            raise StoreError(f"cell {busy[0]} is being trained now. Stop that command first; nothing was deleted.")
        for manifest in what.manifests:
            tracking.forget(manifest)
        delete_searches(resolve_storage(None, cells.root), what.searches)
        for name in names:
            lines.remove(name)
        for manifest in what.manifests:
            cells.remove_manifest(manifest.id)
        free(cells, [Garbage(UNUSED, cells.folder(key), 0, key) for key in keys], only_settled=False)


@contextmanager
def _alone(live_lock: Path) -> Iterator[None]:
    """Nobody works on a study run while the block runs.

    Raises:
        StoreError: a process does.
    """
    with ExitStack() as holding:
        with writing(live_lock):
            live_lock.parent.mkdir(parents=True, exist_ok=True)
            is_ours = holding.enter_context(trying(live_lock))
        if not is_ours:
            raise StoreError(f"{live_lock.name}: a process works on it now. Stop that one first; nothing was deleted.")
        yield
        live_lock.unlink(missing_ok=True)


def check_store(
    store: str | Path = "mlruns", *, on_part: Callable[[str], None] = lambda part: None
) -> Iterator[Finding]:
    """Everything that is wrong in a store, and what mends it: cells, study runs, MLflow, Optuna. Alters nothing.

    Args:
        on_part: gets the name of each part before it is looked at.

    Raises:
        StoreError: there is no such folder.
    """
    from harness.search.check import check_storage
    from harness.search.storage import resolve_storage
    from harness.tracking import resolve_uri
    from harness.tracking.check import check_tracking

    cells = Cells(Path(store).absolute())
    if not cells.root.is_dir():
        raise StoreError(f"{cells.root}: no such folder. --store names another one.")
    on_part("cells")
    yield from check_cells(cells)
    on_part("study runs")
    yield from check_manifests(cells)
    yield from check_snapshots(cells)
    yield from check_lines(cells)
    on_part("MLflow")
    with _as_findings() as found:
        found += check_tracking(resolve_uri(None, cells.root), cells, cells.manifests().values())
    yield from found
    on_part("Optuna")
    with _as_findings() as found:
        found += check_storage(resolve_storage(None, cells.root))
    yield from found


@contextmanager
def _as_findings() -> Iterator[list[Finding]]:
    """A list, to which what stops the block is added."""
    found: list[Finding] = []
    try:
        yield found
    except HarnessError as error:
        where, _, rest = str(error).partition(": ")
        found.append(Finding(where, rest, ""))
