"""`gate`: did a commit lower what the study reports? The code of now against that of another commit, paired by seed."""

import contextlib
import io
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api.training import Watch, train_work
from harness.api.work import Work, plan_work, save_manifest, unfinished
from harness.errors import StudyError
from harness.files.scratch import scratch

if TYPE_CHECKING:
    from harness.stats import Effect

Verdict = Literal["passes", "fails", "undecided"]
ALPHA = 0.05
WITH_BASELINE = ("add-one", "combinations")


@dataclass(frozen=True)
class Gate:
    """What a gate found.

    Attributes:
        verdict: `passes`: the drop is smaller than allowed, at 95%; `fails`: it is larger, at 95%, or the new code
            fails where the old one does not; `undecided`: the seeds cannot tell.
        effect: new code minus old code, with a 90% interval, whose ends are the two one-sided bounds of 95%; None where
            both train the very same cells.
        reason: the verdict in a sentence. commit: of the code that it was compared with.
        seeds_needed: about how many seeds would decide, where that is known.
    """

    verdict: Verdict
    reason: str
    commit: str
    ref: str
    variant: str
    max_drop: float
    work: Work
    effect: "Effect | None" = None
    seeds_needed: int | None = None


def gate(
    study: str | Path,
    *,
    baseline_ref: str,
    max_drop: float,
    variant: str = "baseline",
    watch: Watch = Watch(),  # noqa: B008
    before_training: Any = lambda work, todo, expected, which: None,
    **request: Any,
) -> Gate:
    """Trains one variant of a study with the code of a commit and with that of now, and tests that it has not dropped.

    Non-inferiority by one side of the two one-sided t tests (Schuirmann 1987), paired by seed: it passes where a drop
    of `max_drop` or more can be excluded at 5%. "No significant difference" would pass whatever is noisy enough.

    Cells are kept in the store: what was trained for a commit is not trained again for the next one.

    Args:
        study: the path of a YAML file in a git checkout, of which the commit has a version, too.
        baseline_ref: a branch, tag or commit.
        max_drop: the largest drop that is let pass, in the unit in which the reported metric is shown.
        variant: a change or combination of the study, or the baseline.
        before_training: is told of each of the two parts before it trains.
        request: as `harness.api.work.plan_work`: profile, seeds, store, jobs, ...

    Raises:
        StudyError: the study is in no checkout; the commit or its version of the study is not there.
    """
    from harness.stats import measure, metric_values
    from harness.stats.between import FIRST, SECOND, joined
    from harness.stats.effect import Contrast
    from harness.store.load import results_table

    path = Path(study)
    root, commit = _checkout(path, baseline_ref)
    with _exported(root, commit) as folder:
        earlier = folder / path.resolve().relative_to(root)
        if not earlier.is_file():
            raise StudyError(f"{baseline_ref} ({commit[:12]}) has no {path}: there is nothing to compare with.")
        old = replace(_part(plan_work(earlier, **_asking(variant, request)), variant), asked=str(study))
        new = _part(plan_work(path, **_asking(variant, request)), variant)
        metric = new.plan.study.trainer.metrics.reporting
        if metric != old.plan.study.trainer.metrics.reporting:
            raise StudyError(f"{baseline_ref} reports another metric than this study does, so they cannot be compared.")
        of_commit: dict[str, object] = {"commit": commit, "dirty": False, "diff": ""}
        for part, which, origin in ((old, f"{baseline_ref} ({commit[:12]})", of_commit), (new, "this code", {})):
            todo, expected = unfinished(part)
            before_training(part, todo, expected, which)
            save = partial(save_manifest, part, keeps_command=True)
            train_work(part, todo, save, expected, watch=watch, origin=origin)
    found = Gate("passes", "", commit, baseline_ref, variant, max_drop, new)
    if old.plan.cells == new.plan.cells:
        return replace(found, reason="Nothing that training reads has changed: both train the very same cells.")
    before, after = (results_table(part.cells, part.plan.manifest()) for part in (old, new))
    table = joined(before, after, sorted(set(before["seed"]) & set(after["seed"])))
    if not (table["status"] == "finished").any():
        return replace(found, verdict="undecided", reason="No cell of either code finished.")
    contrast = Contrast.pair(f"{SECOND}:{variant}", f"{FIRST}:{variant}")
    effect = measure(metric_values(table), contrast, confidence=1 - 2 * ALPHA, delta=max_drop / metric.factor)
    return _judged(replace(found, effect=effect))


def _judged(it: Gate) -> Gate:
    """The verdict from the effect: failed cells first, then the interval."""
    from harness.plan.power import seeds_needed
    from harness.stats.between import FIRST, SECOND

    effect, metric = it.effect, it.work.plan.study.trainer.metrics.reporting
    assert effect is not None
    of_old = {cell.seed for cell in effect.missing if cell.variant.startswith(FIRST)}
    lost = [cell.seed for cell in effect.missing if cell.has_ended and cell.variant.startswith(SECOND)]
    if only_here := sorted(set(lost) - of_old):
        seeds = ", ".join(map(str, only_here))
        return replace(it, verdict="fails", reason=f"This code fails where {it.ref} does not: seed {seeds}.")
    allowed = it.max_drop / metric.factor
    worst, best = sorted(metric.sign * bound for bound in (effect.low, effect.high))
    if effect.n > 1 and effect.sd == 0:  # there is no interval, and no doubt
        worst = best = effect.improvement
    if worst > -allowed:
        most = f"at most {metric.say_difference(worst, signed=False)} worse" if worst < 0 else "it has not got worse"
        return replace(it, verdict="passes", reason=f"Worse by {_said(it)} or more is excluded: {most}.")
    if best < -allowed:
        found = metric.say_difference(effect.improvement, signed=False)
        return replace(it, verdict="fails", reason=f"It is worse by more than {_said(it)}: by {found}.")
    spare, needed = allowed + effect.improvement, None  # how far the estimate lies inside what is let pass
    if effect.n > 1 and spare > 0:
        with contextlib.suppress(StudyError):  # more than can be planned
            needed = max(seeds_needed(spare, effect.sd, alpha=2 * ALPHA), effect.n + 1)
    if spare <= 0:
        more = f" The estimate says so: worse by {metric.say_difference(effect.improvement, signed=False)}."
    else:
        more = f" About {needed} seeds would decide, if the estimate holds: --seeds {needed}." if needed else ""
    counted = f"{effect.n} seed{'s' * (effect.n != 1)}"
    reason = f"{counted} cannot tell whether it is worse by {_said(it)} or more.{more}"
    return replace(it, verdict="undecided", reason=reason, seeds_needed=needed)


def _said(it: Gate) -> str:
    metric = it.work.plan.study.trainer.metrics.reporting
    return metric.say_difference(it.max_drop / metric.factor, signed=False)


def _asking(variant: str, request: dict[str, Any]) -> dict[str, Any]:
    return request if variant == "baseline" else request | {"only": (variant,), "designs": WITH_BASELINE}


def _part(work: Work, variant: str) -> Work:
    """The cells of one variant, and no comparison: nothing is looked at that the study itself will test."""
    found = tuple(it for it in work.plan.variants if it.name == variant)
    if not found:
        names = ", ".join(it.name for it in work.plan.variants)
        raise StudyError(f"--variant {variant}: the study has none of that name; this plan has {names}.")
    return replace(work, plan=replace(work.plan, variants=found, comparisons=(), notes=()))


def _checkout(path: Path, ref: str) -> tuple[Path, str]:
    """The root of the checkout that a study lies in, and the commit that a name stands for."""
    if not path.is_file():
        raise StudyError(f"{path}: there is no such file; gate takes the path of a study in a git checkout.")
    where = path.resolve().parent
    root = _git(where, "rev-parse", "--show-toplevel")
    if root is None:
        raise StudyError(f"{path}: lies in no git checkout, so there is no other code to compare it with.")
    commit = _git(where, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if commit is None:
        raise StudyError(
            f"--baseline-ref {ref}: no such commit in {root.decode().strip()}. In CI, fetch it first (a shallow "
            f"checkout has one commit): `git fetch origin {ref}`, and name it `origin/{ref}`."
        )
    return Path(root.decode().strip()), commit.decode().strip()


@contextlib.contextmanager
def _exported(root: Path, commit: str) -> Iterator[Path]:
    """The files of a commit in a folder of their own; the checkout is left as it is."""
    archive = _git(root, "archive", "--format=tar", commit)
    if archive is None:
        raise StudyError(f"{root}: `git archive {commit[:12]}` gives nothing; is the checkout complete?")
    with scratch() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield folder.resolve()


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
