"""`search`: Optuna tries combinations of changes; which change is the biggest single improvement?"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.training import Placebos, Watch, followed, get_ready, judging, open_tracking, track_summary
from harness.api.work import Work, plan_work, save_manifest, unfinished
from harness.errors import HarnessError, StudyError
from harness.execution.provenance import command_line, provenance
from harness.execution.runner import Progress
from harness.plan.manifest import Manifest
from harness.plan.variants import Variant
from harness.search.choices import Prune, Sampler
from harness.study.designs.comparisons import Comparison
from harness.study.study import Study

if TYPE_CHECKING:
    from harness.search.answer import Answer
    from harness.tracking import Follower, Tracking

OnTrial = Callable[[int, Variant], None]


def _ignore(number: int, variant: Variant) -> None:
    """Nobody watches."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search.

    Attributes:
        num_trials: combinations in all, those of earlier calls and of other processes included; what leaves one change
            out of the best comes on top.
        seconds: how long to train; None for no limit.
        retry_failed: try combinations again that failed or diverged, from the start.
    """

    num_trials: int
    sampler: Sampler = "tpe"
    prune: Prune = "none"
    seconds: float | None = None
    retry_failed: bool = False


def search(
    study: str | Path | Study,
    *,
    trials: int,
    sampler: Sampler = "tpe",
    prune: Prune = "none",
    seconds: float | None = None,
    storage: str | None = None,
    retry_failed: bool = False,
    watch: Watch = Watch(),  # noqa: B008
    **request: Any,
) -> "Answer":
    """Try combinations of a study's changes, and say which change is the biggest single improvement.

    The baseline, each change alone and the study's combinations come first. What has ended is read, never trained
    again; the same call continues, and several may run at once on one storage.

    Args:
        trials, sampler, prune, seconds, retry_failed: as `SearchOptions`.
        storage: Optuna's; $HARNESS_OPTUNA_STORAGE or `optuna.db` in the store by default.
        request: as `harness.api.work.plan_work`.

    Raises:
        HarnessError: the request is wrong, the storage cannot be used, or something that cells need is missing.
        ResultsError: stopped before any combination had a value.
    """
    from harness.search.storage import resolve_storage

    work = plan_work(study, **request, designs=("add-one", "combinations"))
    options = SearchOptions(
        num_trials=trials,
        sampler=sampler,
        prune=prune,
        seconds=seconds,
        retry_failed=retry_failed,
    )
    return search_work(work, resolve_storage(storage, work.cells.root), options, watch=watch)


def search_work(
    work: Work,
    url: str,
    options: SearchOptions,
    *,
    watch: Watch = Watch(),  # noqa: B008
    on_trial: OnTrial = _ignore,
) -> "Answer":
    """`search` on a plan that was made, with the designs add-one and combinations.

    Args:
        url: as `harness.search.storage.resolve_storage` gives it.
        on_trial: gets each trial's number and variant when this process begins it.

    Raises:
        StudyError: training never reads what a change sets: half of the combinations would be repetitions. What has
            ended is saved; so it is with whatever else is raised.
    """
    from harness.search.run import search as run_search
    from harness.search.storage import open_storage

    placebos = Placebos(work)
    refuse_placebos(placebos)
    todo, expected = unfinished(work)
    get_ready(work, todo, expected, prepared=work.plan.cells, watch=watch)
    with open_storage(url):
        pass  # can be used: a mistyped address must not leave a study run behind
    tracking = open_tracking(work.cells)
    manifest = save_manifest(only(work, []))
    with followed(tracking, work.cells, manifest, watch) as follower:
        scribe = _Scribe(work, tracking, follower, manifest, on_trial)
        answer = run_search(
            work.plan,
            work.cells,
            storage=url,
            num_trials=options.num_trials,
            sampler=options.sampler,
            prune=options.prune,
            seconds=options.seconds,
            retry_failed=options.retry_failed,
            devices=work.devices,
            provenance=provenance(command_line()),
            on_progress=refusing(placebos, watch),
            on_trial=scribe.begin,
            run_ids=scribe.run_ids,
            executor=work.executor,
            demand=work.demand,
        )
        track_summary(tracking, work.cells, scribe.manifest)
    return answer


def refuse_placebos(placebos: Placebos) -> None:
    """Raises StudyError where training never reads what a change sets: half of all combinations would be repeated."""
    if placebos.problems:
        raise StudyError(*dict.fromkeys(placebos.problems.values()))


def refusing(placebos: Placebos, watch: Watch) -> Callable[[Progress], None]:
    """As `judging`, but raises StudyError at the first change that is a placebo."""
    judge = judging(placebos, watch)

    def see(it: Progress) -> None:
        judge(it)
        refuse_placebos(placebos)

    return see


class _Scribe:
    """Notes each trial in the study run's manifest as it begins, and finds its MLflow runs when it ends."""

    def __init__(
        self, work: Work, tracking: "Tracking", follower: "Follower", manifest: Manifest, on_trial: OnTrial
    ) -> None:
        from harness.tracking import Tracking

        self.manifest = manifest
        self._work, self._follower, self._on_trial = work, follower, on_trial
        self._tracking = Tracking(tracking.uri, tracking.root)  # the other one is the follower's, in its own thread

    def begin(self, search: str, number: int, variant: Variant) -> None:
        tags = {variant.name: {"harness.search": search, "harness.trial": str(number)}}
        self.manifest = save_manifest(only(self._work, [variant]), tags)
        self._follower.extend(self.manifest)
        self._on_trial(number, variant)

    def run_ids(self, variant: Variant) -> Mapping[int, str]:
        """Brings MLflow up to these cells first, so that there are runs; not while it does not answer."""
        if not self._follower.problem:
            with suppress(HarnessError):  # the follower says it
                self._tracking.project(self.manifest, self._work.cells, [cell.key for cell in variant.cells])
        links = {}
        with suppress(HarnessError):
            links = {cell.seed: self._tracking.run_link(self.manifest, cell.key) for cell in variant.cells}
        return {seed: link.url or link.run_id for seed, link in links.items() if link}


def only(work: Work, variants: list[Variant]) -> Work:
    """The work with the baseline and these variants alone; single changes are compared with it, as `ablate` does."""
    baseline = work.plan.variants[0]
    singles = [it for it in variants if len(it.changes) == 1]
    comparisons = tuple(Comparison("add-one", it.changes[0], it.changes, ()) for it in singles)
    several = (baseline, *(it for it in variants if it.changes))
    return replace(work, plan=replace(work.plan, variants=several, comparisons=comparisons, notes=()))
