"""`prune`: the smallest set of changes that is no worse than all of them, as a branch that can be checked out.

Changes are dropped one after the other, the least helpful first, by what the store already holds of the selecting
metric. Each set that is left is compared with all of them on fresh seeds, by the reported metric. The order stands
before the first of these seeds is trained and the first set that fails ends it, so that every test may spend the whole
error (a fixed sequence; Maurer, Hothorn & Lehmacher 1995).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.confirmation import fresh_seeds
from harness.api.training import Watch, train_work
from harness.api.work import Work, plan_work, unfinished
from harness.errors import OutputError, ResultsError, StudyError
from harness.execution.provenance import command_line
from harness.metrics import Metric
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate
from harness.plan.extension import extended
from harness.plan.manifest import Manifest
from harness.plan.plan import Variant
from harness.study.designs.comparisons import Changes, in_order
from harness.study.load import load_study
from harness.study.study import Study
from harness.trainers.commits import Step, check_branch, write_branch, write_commits, write_patches
from harness.trainers.user import UserTrainer

if TYPE_CHECKING:
    from harness.stats import Effect

ALPHA = 0.05
MOST_TESTS = 16  # of more changes, several are dropped at a time
HEAD = "head"


@dataclass(frozen=True)
class Tried:
    """A set that was compared with all changes.

    Attributes:
        dropped: the changes that the set before had. effect: the set minus all changes.
        p: against a loss of delta or more.
    """

    changes: Changes
    dropped: Changes
    effect: "Effect"
    p: float

    @property
    def passes(self) -> bool:
        return self.p <= ALPHA and not self.effect.missing


@dataclass(frozen=True)
class Pruned:
    """What is left.

    Attributes:
        full: all changes. kept: the smallest set that is no worse. tried: in order; the last one may have failed.
        delta: as the reported metric is shown. settings: changes that are settings, which no commit holds.
        commit: the new branch's; empty where no change that is left is code.
        notes: files whose edits were left out, a sentence each.
    """

    work: Work
    full: Changes
    kept: Changes
    tried: tuple[Tried, ...]
    delta: float
    branch: str = ""
    commit: str = ""
    patches: tuple[Path, ...] = ()
    settings: Changes = ()
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> Metric:
        return self.work.plan.study.trainer.metrics.reporting

    @property
    def best(self) -> Tried | None:
        """The set that is left, as it was tried; None where nothing could be dropped."""
        return next((it for it in reversed(self.tried) if it.passes), None)

    @property
    def sentence(self) -> str:
        num_seeds = len(self.work.plan.seeds)
        allowed = self.metric.say_difference(self.delta / self.metric.factor, signed=False)
        if self.best is None:
            why = f"dropping {', '.join(self.tried[0].dropped)} may lose {allowed} or more" if self.tried else "of one"
            return f"All {len(self.full)} changes stay: {why}, as far as {num_seeds} fresh seeds can tell."
        effect = self.best.effect
        improved = sorted(self.metric.sign * it for it in (effect.low, effect.high))
        how = "better" if improved[0] > 0 else "no worse"
        return (
            f"{len(self.kept)} of {len(self.full)} changes are {how} than all of them: worse by {allowed} or more is "
            f"excluded (p {_p(self.best.p)}); {self.metric.say_difference(effect.mean)} "
            f"[{self.metric.say_interval(effect.low, effect.high)}] in {self.metric.words} on {effect.n} fresh seeds."
        )

    @property
    def report(self) -> str:
        """The sentence, what is kept, and each set that was tried, for people; the new branch's description."""
        lines = [
            self.sentence,
            "",
            f"Kept: {', '.join(self.kept) or 'nothing'}.",
            "",
            "Dropped, one test after the other:",
        ]
        lines += [f"  {self.describe(it)}" for it in self.tried]
        if self.settings:
            lines.append(f"\nSettings, which no commit holds: {', '.join(self.settings)}.")
        return "\n".join([*lines, *self.notes])

    def describe(self, it: Tried) -> str:
        """A set that was tried, in a line."""
        effect = it.effect
        found = f"{self.metric.say_difference(effect.mean)} [{self.metric.say_interval(effect.low, effect.high)}]"
        verdict = "no worse" if it.passes else "may be worse: it stays"
        return f"{', '.join(it.dropped)}: {found}, p {_p(it.p)}, {verdict}"


def _p(p: float) -> str:
    from harness.stats import format_p

    return format_p(p)


def prune(
    study: str | Path | Study,
    *,
    delta: float,
    head: str = HEAD,
    seeds: int | None = None,
    branch: str = "",
    patches: str | Path | None = None,
    watch: Watch = Watch(),  # noqa: B008
    before_training: Callable[[Work, Sequence[Cell], Estimate], None] = lambda work, todo, expected: None,
    **request: Any,
) -> Pruned:
    """Drops the changes of a combination one after the other, as long as what is left is no worse; writes a branch.

    The user's working tree, index, stash and references stay as they are, but for the new branch.

    Args:
        delta: the smallest loss that matters, in the unit in which the reported metric is shown.
        head: the combination of all changes.
        seeds: how many fresh ones; the profile's by default.
        branch: of the new commits; `pruned/STUDY` by default. patches: a folder for them as patches, too.
        before_training: is told what may be trained at most: it ends with the first set that fails.
        request: as `harness.api.work.plan_work`: profile, settings, store, jobs, ...

    Raises:
        StudyError: no such combination; the code is not that of a commit; the branch is there with other commits.
        ResultsError: the store holds nothing of this study by which changes could be put in order.
    """
    if not delta > 0:
        raise StudyError("prune needs the smallest loss that matters (--delta, positive, as the metric is shown).")
    declared = study if isinstance(study, Study) else load_study(study)
    full = _full(declared, head)
    trainer = _committed(declared, full)
    request = {**request, "designs": ("combinations",), "only": (head,)}
    work = plan_work(study, **request, seeds=seeds)
    if patches and Path(patches).exists() and any(Path(patches).iterdir()):
        raise OutputError(f"{patches}: is there already, and not empty; --patches names another folder.")
    branch = branch or f"pruned/{declared.name}"
    there = check_branch(trainer.repository, branch) if trainer else ""
    source = _source(work)
    sets = list(_sets(declared, full, _gains(work, source, full)))
    name = _id(work.plan.id, work.plan.make_variant(full), sets, delta)
    known = work.cells.manifests().get(name)
    if there and not known:
        raise _other_branch(branch, there)
    fresh = tuple(known.variants[0].cells) if known else fresh_seeds(work.cells, len(work.plan.seeds))
    work = plan_work(study, **request, seeds=fresh)
    tests = _Tests(work, full, sets, delta)
    variants = [tests.full, *tests.smaller]
    part = replace(work, plan=replace(work.plan, variants=tuple(variants), comparisons=(), notes=()))
    todo, expected = unfinished(part)
    before_training(part, todo, expected)
    todo.sort(key=lambda cell: next(index for index, it in enumerate(variants) if cell in it.cells))  # set by set
    save = partial(_save, work, name, source, variants)
    train_work(part, todo, save, expected, watch=watch, is_over=tests.have_failed)
    return _written(tests.conclude(work.cells.known_manifest(name)), trainer, branch, patches)


class _Tests:
    """All changes against the sets that are left, one after the other, as far as their cells have ended."""

    def __init__(self, work: Work, full: Changes, sets: Sequence[Changes], delta: float) -> None:
        self.work, self.changes, self.delta = work, full, delta
        self.metric = work.plan.study.trainer.metrics.reporting
        self.full = work.plan.make_variant(full)
        self.smaller = [work.plan.make_variant(it) for it in sets]
        self.num_passed = 0

    def have_failed(self) -> bool:
        """Whether a set has ended that does not pass; looks at each set once it has ended."""
        while self.num_passed < len(self.smaller):
            pairs = zip(self.smaller[self.num_passed].cells, self.full.cells, strict=True)
            results = [self.work.cells.result(cell.key) for pair in pairs for cell in pair]
            if any(it is None for it in results):
                return False
            numbers = [it.metrics[self.metric.name] for it in results if it and self.metric.name in it.metrics]
            differences = [one - all_of_them for one, all_of_them in zip(numbers[::2], numbers[1::2], strict=False)]
            if len(numbers) < len(results) or not self.p(differences) <= ALPHA:
                return True
            self.num_passed += 1
        return False

    def p(self, differences: Sequence[float]) -> float:
        import numpy as np

        from harness.stats.significance import noninferiority_p

        return float(noninferiority_p(self.metric.sign * np.asarray(differences), self.delta / self.metric.factor))

    def conclude(self, manifest: Manifest) -> Pruned:
        from harness.stats import measure, metric_values
        from harness.stats.effect import Contrast
        from harness.store.load import results_table

        self.have_failed()
        values = metric_values(results_table(self.work.cells, manifest))
        delta, left, tried = self.delta / self.metric.factor, self.changes, []
        for it in self.smaller[: self.num_passed + 1]:
            contrast = Contrast.pair(it.name, self.full.name)
            effect = measure(values, contrast, confidence=1 - 2 * ALPHA, delta=delta)
            dropped = tuple(name for name in left if name not in it.changes)
            tried.append(Tried(it.changes, dropped, effect, self.p(effect.differences)))
            left = it.changes
        kept = self.smaller[self.num_passed - 1].changes if self.num_passed else self.changes
        return Pruned(self.work, self.changes, kept, tuple(tried), self.delta)


def _full(study: Study, head: str) -> Changes:
    known = {it.name: it.changes for it in study.combinations}
    if head not in known:
        names = ", ".join(known) or "none"
        raise StudyError(f"--head {head}: the study has no combination of this name; it has: {names}.")
    return in_order(study, known[head])


def _committed(study: Study, full: Changes) -> UserTrainer | None:
    """The trainer whose code the changes edit; None where all of them are settings."""
    if not any(study.change(name).code for name in full):
        return None
    trainer = study.trainer
    assert isinstance(trainer, UserTrainer), "only such a trainer has changes that are code"
    if not trainer.commit:
        raise StudyError(
            "prune makes commits on top of the baseline's, so the study must say which one that is (`commit:`); "
            "`harness study BASE..TIP` writes it."
        )
    return trainer


def _source(work: Work) -> Manifest:
    """The study run by whose results changes are put in order."""
    source = work.cells.manifests().get(work.plan.id)
    if source is None:
        raise _nothing(work)
    return source


def _nothing(work: Work) -> ResultsError:
    return ResultsError(
        f"{work.cells.root}: holds no result of {work.plan.id} by which its changes could be put in order. Train it "
        "first: `harness ablate`; `--design screening` takes the fewest cells for many changes."
    )


def _gains(work: Work, source: Manifest, full: Changes) -> dict[str, float]:
    """By how much each change improves the selecting metric, by all cells that the study run holds; those that these
    cannot tell, as if they did nothing."""
    from harness.stats import marginal_effects
    from harness.store.load import results_table

    metric = work.plan.study.trainer.metrics.selecting
    try:
        table = marginal_effects(results_table(work.cells, source), metric=metric.name)
    except ResultsError:
        raise _nothing(work) from None
    measured = table[table["mean"].notna()]
    gains = {
        str(name): metric.sign * float(mean) for name, mean in zip(measured["change"], measured["mean"], strict=True)
    }
    if not gains.keys() & {*full}:
        raise _nothing(work)
    return {name: gains.get(name, 0.0) for name in full}


def _sets(study: Study, full: Changes, gains: dict[str, float]) -> Iterator[Changes]:
    """Sets that are left as changes are dropped, the least helpful first; what is needed goes after what needs it."""
    needs = {name: {it.name for it in below} for name, below in study.needs().items()}
    left, at_a_time = list(full), max(1, ceil(len(full) / MOST_TESTS))
    while left:
        for _ in range(min(at_a_time, len(left))):
            free = [it for it in left if not any(it in needs.get(other, ()) for other in left)]
            left.remove(min(free, key=lambda it: (gains[it], -full.index(it))))
        yield tuple(left)


def _id(source: str, head: Variant, sets: Sequence[Changes], delta: float) -> str:
    content = json.dumps([head.settings_hash, sets, delta, ALPHA])
    return f"{source}-prune-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _save(work: Work, name: str, source: Manifest, sides: Sequence[Variant]) -> Manifest:
    """Writes the manifest of what was trained so far: a study run of its own, for its seeds are fresh."""
    made = replace(work.plan, variants=(work.plan.variants[0], *sides), comparisons=(), notes=()).manifest(
        command_line()
    )
    made = replace(made, id=name, belongs_to=source.id, variants=made.variants[1:], asked=work.asked)
    with work.cells.updating_manifest(name):
        known = work.cells.manifest(name)
        made = extended(known, made) if known else made
        work.cells.write_manifest(made)
    return made


def _written(found: Pruned, trainer: UserTrainer | None, branch: str, patches: str | Path | None) -> Pruned:
    """With the branch of what is left."""
    study = found.work.plan.study
    changes = [study.change(name) for name in found.kept]
    found = replace(found, settings=tuple(it.name for it in changes if it.overrides))
    edits = [(it, it.code) for it in changes if it.code]
    if not edits or trainer is None:
        return found
    steps = []
    for change, edit in edits:
        like = edit.commits[-1] if edit.commits else ""
        origin = f"\n\nPruned-from: {', '.join(edit.commits)}" if edit.commits else ""
        steps.append(Step(edit, f"{change.summary}{origin}\n", like))
    last = steps[-1]
    subject, blank, trailer = last.message.partition("\n\n")
    steps[-1] = replace(last, message=f"{subject.rstrip()}\n\n{found.report}\n{blank}{trailer}")
    commit, notes = write_commits(trainer.root, trainer.commit, steps, home=trainer.home)
    there = check_branch(trainer.repository, branch)
    if there and there != commit:
        raise StudyError(
            f"branch {branch} is there already, with other commits ({there[:10]}); --branch names another."
        )
    if not there:
        write_branch(trainer.repository, branch, commit)
    files: list[Path] = []
    if patches:
        files = write_patches(trainer.repository, trainer.commit, commit, Path(patches))
    return replace(found, branch=branch, commit=commit, patches=tuple(files), notes=tuple(notes))


def _other_branch(branch: str, there: str) -> StudyError:
    return StudyError(f"branch {branch} is there already, with other commits ({there[:10]}); --branch names another.")
