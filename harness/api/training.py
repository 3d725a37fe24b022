"""Trains the cells of a plan, MLflow following from their journals; refuses changes that training never reads."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from harness.api.looking import looked_at
from harness.api.main_block import check_main_block
from harness.api.notebook import notebook_bar
from harness.api.work import Work, check_device, check_disk, prepare
from harness.errors import UnreachableError
from harness.execution.processes import warm_up
from harness.execution.provenance import command_line, provenance
from harness.execution.runner import Progress, run
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate
from harness.plan.manifest import Manifest
from harness.plan.variants import Variant
from harness.store.cells import Cells
from harness.study.changes import placebo_problem
from harness.trainers.run import SETTINGS_UNREAD, SETTINGS_UNSEEN

if TYPE_CHECKING:
    from harness.tracking import Follower, Tracking


def _ignore(said: object) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Watch:
    """Who is told what happens.

    Attributes:
        on_progress: each event of a cell, and its end.
        on_problem: a sentence about something that loses nothing, such as a tracking server that is away.
    """

    on_progress: Callable[[Progress], None] = _ignore
    on_problem: Callable[[str], None] = _ignore


@dataclass
class Placebos:
    """The variants of a plan with a change whose settings training never read: what they measure is no effect.

    Attributes:
        problems: variant's name to what is wrong, in a sentence.
        doubts: changes whose settings a script may never have seen, a sentence each: said, but not refused.
    """

    work: Work
    problems: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    _users: dict[str, list[Variant]] = field(init=False, repr=False, default_factory=dict)  # by a cell's key

    def __post_init__(self) -> None:
        for variant in self.work.plan.variants:
            for cell in variant.cells:
                self._users.setdefault(cell.key, []).append(variant)
        for variant in self.work.plan.variants if self.work.plan.study.trainer.notes_reads else ():
            ended = (result for cell in variant.cells if (result := self.work.cells.result(cell.key)))
            result = next((it for it in ended if it.is_finished), None)
            if result:
                self._judge(variant.name, variant.changes, result.facts)

    def see(self, progress: Progress) -> None:
        """Judges each variant when its first cell has ended."""
        if progress.result is None or not progress.result.is_finished:
            return
        for variant in self._users.get(progress.cell.key, ()):
            if variant.name not in self.problems:
                self._judge(variant.name, variant.changes, progress.result.facts)

    def without(self, cells: Sequence[Cell]) -> Iterator[Cell]:
        """Those cells that a variant without a placebo needs, as it stands when each is asked for."""
        for cell in cells:
            if not self.is_refused(cell):
                yield cell

    def is_refused(self, cell: Cell) -> bool:
        if not self.problems:
            return False
        users = self._users.get(cell.key, ())
        return bool(users) and all(it.name in self.problems for it in users)

    def _judge(self, name: str, changes: Sequence[str], facts: Any) -> None:
        unread, unseen = (str(facts.get(fact, "")).split(", ") for fact in (SETTINGS_UNREAD, SETTINGS_UNSEEN))
        for change in changes:
            declared = self.work.plan.study.change(change)
            if declared.code:
                continue  # its code differs, whatever reads its settings
            overrides = list(declared.overrides)
            if problem := placebo_problem(change, overrides, unread):
                self.problems[name] = problem
            elif placebo_problem(change, overrides, unseen):
                self.doubts[change] = (
                    f"change {change!r} may be a placebo: {', '.join(overrides)} is in no placeholder of the command, "
                    "and its file of settings ($HARNESS_SETTINGS) was not opened."
                )


def judging(placebos: Placebos, watch: Watch) -> Callable[[Progress], None]:
    """Passes progress on to whoever watches, and judges each variant by it; a doubt is said once."""
    doubted: set[str] = set()

    def see(it: Progress) -> None:
        watch.on_progress(it)
        placebos.see(it)
        for change in placebos.doubts.keys() - doubted:
            doubted.add(change)
            watch.on_problem(placebos.doubts[change])

    return see


def train_work(
    work: Work,
    todo: Sequence[Cell],
    save: Callable[[], Manifest],
    expected: Estimate,
    *,
    watch: Watch = Watch(),
    origin: Mapping[str, object] = {},
    is_over: Callable[[], bool] = lambda: False,
    concerns: Collection[str] | None = None,
) -> Placebos:
    """Trains the cells of `todo`.

    Args:
        concerns: names of variants, where the study run has hundreds of others that are as they were: MLflow is told
            of these alone. None for all.
        watch: by default nobody; in a notebook, a bar below the cell.
        origin: what is recorded of where the code comes from (`commit`, `dirty`, `diff`), where it is not that of the
            current folder.
        is_over: whether enough is known; then no further cell of `todo` begins, and those that train are left where
            they are.
        save: writes the study run's manifest and returns it; called when nothing stands in the way of training any
            more, for a request that is refused must leave no study run without results behind.

    Returns:
        The variants that were given up because training never reads what their change sets.

    Raises:
        StoreError: too little disk for these cells; nothing was started.
        HarnessError: the trainer cannot compute on the device; nothing was started.
        DataError, StudyError: something that cells need is missing; nothing was started.
        TrackingError: the tracking database cannot be used; a server that is merely down is no error.
        KeyboardInterrupt: passes through; what has ended is saved, and the same call continues.
    """
    if watch == Watch() and (bar := notebook_bar(work.plan.study.name, len(todo))):
        watch = Watch(bar.see, bar.say)
    import_tracking_ahead()
    get_ready(work, todo, expected, watch=watch)
    placebos = Placebos(work)
    tracking = open_tracking(work.cells)
    manifest = save()
    part = (it for it in manifest.variants if concerns is not None and it.name in concerns)
    keys = None if concerns is None else {key for it in part for key in it.cells.values()}
    with followed(tracking, work.cells, manifest, watch, keys=keys):
        if work.cells.manifest(manifest.id) is None:
            save()  # whoever deletes it now waits for us; we may have waited for somebody who did
        run(
            takewhile(lambda cell: not is_over(), placebos.without(todo)),
            work.cells,
            devices=work.devices,
            provenance={**provenance(command_line()), **origin},
            on_progress=judging(placebos, watch),
            should_stop=lambda cell: is_over() or placebos.is_refused(cell),
            executor=work.executor,
            demand=work.demand,
        )
        track_summary(tracking, work.cells, manifest, concerns)
    return placebos


def get_ready(
    work: Work,
    todo: Sequence[Cell],
    expected: Estimate,
    *,
    prepared: Sequence[Cell] | None = None,
    watch: Watch = Watch(),
) -> None:
    """Checks and fetches what these cells need, before any of them starts; raises what `train_work` says of it.

    Args:
        watch: is told what would make them faster here.
        prepared: what is fetched is for these, by default for `todo`; a search may come to any of its space.
    """
    if todo and work.executor == "processes":
        check_main_block()
    check_disk(work, expected)
    if todo:
        warm_up_workers(work)  # first: trying a CUDA device takes as long as importing PyTorch
    check_device(work, todo)
    if todo and not work.executor.startswith("ray") and (advice := work.plan.study.trainer.device_advice(work.device)):
        watch.on_problem(advice)
    prepare(work, todo if prepared is None else prepared)


def warm_up_workers(work: Work) -> None:
    """Begin to import what workers need while other things are done."""
    if work.executor == "processes":
        warm_up(*work.plan.study.trainer.warm_up)


def import_tracking_ahead() -> None:
    """Begin to import MLflow while other things are done."""
    from harness.tracking import import_ahead

    import_ahead()


def open_tracking(cells: Cells) -> "Tracking":
    """MLflow's database or server, ready for use.

    Raises:
        TrackingError: the tracking database cannot be used; a server that is merely down is no error, and what is
            trained meanwhile is delivered when it is there again.
    """
    from harness.tracking import Tracking, init, resolve_uri

    uri = resolve_uri(None, cells.root)
    with suppress(UnreachableError):  # who follows says so
        init(uri, cells.root)
    return Tracking(uri, cells.root)


@contextmanager
def followed(
    tracking: "Tracking", cells: Cells, manifest: Manifest, watch: Watch, *, keys: Collection[str] | None = None
) -> Iterator["Follower"]:
    """MLflow follows from the journals while the block trains. Says what waits."""
    from harness.tracking import follow

    with follow(tracking, cells, manifest, keys=keys, on_problem=watch.on_problem) as follower:
        yield follower
    if follower.delivery.pending:
        watch.on_problem(
            f"{follower.delivery.pending} events wait for the tracking server ({follower.delivery.problem}) "
            "`harness sync` delivers them."
        )


def track_summary(
    tracking: "Tracking", cells: Cells, manifest: Manifest, concerns: Collection[str] | None = None
) -> None:
    """Keeps each variant's mean, spread and effect for MLflow, from all that the study run holds.

    Args:
        concerns: names of variants, of a study run that compares nothing; None for all.
    """
    from harness.report.tables import families
    from harness.stats import summary

    manifest = cells.manifests().get(manifest.id, manifest)  # all that is tested together, as tables and reports do
    if concerns is not None:
        manifest = replace(manifest, variants=tuple(it for it in manifest.variants if it.name in concerns))
    table = looked_at(cells, manifest)
    if not (table["status"] == "finished").any():
        return
    means = summary(table)[["variant", "n_ok", "mean", "sd"]].to_dict("records")
    rows: dict[str, dict[str, Any]] = {row["variant"]: {str(key): it for key, it in row.items()} for row in means}
    told: set[str] = set()
    for family in families(table).values():
        for row in family.effects.itertuples():
            variant = family.sides[str(row.variant)][0]
            if variant not in told and not family.full:  # the first design that compares it, single changes before all
                told.add(variant)
                numbers = {
                    "effect": row.mean,
                    "low": row.low,
                    "high": row.high,
                    "p": row.p,
                    "p_adjusted": row.p_adjusted,
                }
                rows[variant] |= numbers
    tracking.log_summary(manifest, rows.values(), {})
