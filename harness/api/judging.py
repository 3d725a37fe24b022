"""`judge`: is this candidate better than the champion? Paired seeds, one after the other, until that is decided.

A line of champions belongs to a study. It begins at a commit (or at the study's baseline); a candidate is judged
against the present champion, and what is kept may be promoted to the next one. Every champion has seeds of its own,
which nothing before it was judged by: its number is no luckiest of many. When a proposal is kept or given up, and what
a stream of them spends, is in `stats.online`; what was decided is in `store.lines`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api.candidates import Asked, begun
from harness.api.confirmation import fresh_seeds
from harness.api.main_block import check_main_block
from harness.api.training import Watch, train_work
from harness.api.work import Work, unfinished
from harness.errors import StudyError
from harness.execution.executor import EXECUTORS
from harness.execution.provenance import command_line
from harness.metrics import Metric
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate
from harness.plan.extension import extended
from harness.plan.manifest import Manifest
from harness.plan.plan import Variant
from harness.store.cells import Cells
from harness.store.lines import FORMAT, Champion, Line, Lines, Proposed
from harness.store.result import Result
from harness.study.changes import placebo_problem
from harness.trainers.run import SETTINGS_UNREAD

if TYPE_CHECKING:
    from harness.stats.online import Judgement

Rule = Literal["stream", "each", "explore"]
RULES: tuple[Rule, ...] = ("stream", "each", "explore")
ALPHA = 0.05  # of a line, unless it declares another
FRESH = 4  # seeds by which a new champion is measured
ROOM = 2  # by default as many seeds as could decide at the least, times this
LEAST_ROOM = 12
MOST_SEEN = 1_000  # seeds that a candidate may have been seen on before it is proposed
SAME_CODE = "the same code and settings as the champion"
FAILED = "it fails"


@dataclass(frozen=True)
class Judged:
    """What `judge` found.

    Attributes:
        proposal: with verdict, reason, level and gain.
        is_repeated: whether this very candidate was judged against this champion before; nothing was trained.
        champion: the present one, after a promotion. estimate: its mean on fresh seeds, with their number and the
            standard error (NaN for one); None where none has ended.
        num_cells: trained for this verdict.
    """

    work: Work
    line: Line
    proposal: Proposed
    champion: Champion
    estimate: tuple[float, int, float] | None
    is_repeated: bool = False
    num_cells: int = 0

    @property
    def metric(self) -> Metric:
        return self.work.plan.study.trainer.metrics.selecting

    @property
    def price(self) -> str:
        """What the rule costs, in a sentence."""
        from harness.stats.online import least_seeds

        level = self.proposal.level
        if self.proposal.rule == "explore":
            return "explore: one run a proposal; what looks better is kept unproven, and most of it does nothing."
        needed = f"kept where E reaches {1 / level:,.0f}, which {least_seeds(level)} seeds that gain alike just reach"
        if self.proposal.rule == "each":
            return f"each: {needed}; a useless proposal is kept in {100 * level:.2g}% of cases at most, each anew."
        return (
            f"stream: {needed}; of all that this line keeps, {100 * self.line.alpha:.2g}% at most are expected to be "
            "useless. The next proposal needs more evidence; one after a keep needs less."
        )


def judge(
    study: str | Path,
    candidate: str = "",
    *,
    change: Mapping[str, Any] = {},
    rule: Rule = "stream",
    alpha: float | None = None,
    line: str = "main",
    champion: str = "",
    seeds: int | None = None,
    mde: float = 0.0,
    promote: bool = False,
    profile: str = "standard",
    store: str | Path = "mlruns",
    watch: Watch = Watch(),  # noqa: B008
    before_training: Callable[[Work, Sequence[Cell], Estimate], None] = lambda work, todo, expected: None,
    **request: Any,
) -> Judged:
    """Judges a candidate against the champion, by the selecting metric, paired by seed, with a look after each seed.

    A stream of proposals looks at that metric again and again, and may come to fit its data; what the study reports is
    neither decided by nor shown.

    The same candidate against the same champion is answered from the store. One that was not decided goes on where it
    was, with more seeds.

    Args:
        candidate: a commit (its own edit), a branch (what it adds), the path of a patch, or "." for what the working
            tree adds to HEAD (without files that git does not know); empty where `change` is all.
        change: settings by dotted path, in place of code or with it.
        rule: `stream` holds the share of useless ones among all that is kept (e-LOND); `each` decides every proposal at
            `alpha`; `explore` keeps what looks better on one run, as unproven.
        alpha: of the line; declared by its first call, .05 by default.
        line: the name of a line, of which a study may have several.
        champion: where a new line begins, a commit; by default the study's `commit:`, else the one that the candidate
            stands on.
        seeds: of each side, at most; by default twice as many as it takes at least.
        mde: the smallest gain worth finding, in the unit in which the metric is shown: a candidate that surely has less
            is given up.
        promote: makes a candidate that is kept the champion, measured on fresh seeds.
        request: as `harness.api.work.plan_work`: jobs, device, executor.

    Raises:
        StudyError: no such candidate; it does not merge, or edits what is fixed; the line has another baseline.
    """
    if rule not in RULES:
        raise StudyError(f"--level {rule!r}: expected one of {', '.join(RULES)}.")
    if request.get("executor", EXECUTORS[0]) == "processes":
        check_main_block()  # before a line is begun
    asked = Asked(study, profile, Path(store).absolute(), request)
    lines = Lines(asked.store)
    name = asked.line_id(line)
    with lines.judging(name):
        known = lines.read(name)
        base = known.base if known else asked.beginning(candidate, champion)
        found = known or begun(name, asked, base, ALPHA if alpha is None else alpha)
        asked.check(found, alpha, champion)
        entry = asked.entry(candidate, change, found, lines)
        held = _held(found, entry)  # by the champion already: to judge it again would compare nothing
        court = _Court(asked, lines, held[0] if held else found, held[1].entry if held else entry, rule, seeds, mde)
        return court.decide(watch, before_training, promote=promote)


def _held(line: Line, entry: Mapping[str, Any]) -> tuple[Line, Proposed] | None:
    """The promoted proposal that is this very candidate, and the line as it was before it."""
    for it in line.proposals:
        same = all(it.entry.get(key) == entry.get(key) for key in ("commit", "patch", "overrides"))
        if it.promoted and it.promoted <= line.champion.number and same:
            return replace(line, champions=line.champions[: it.champion + 1]), it
    return None


class _Court:
    """One candidate before the champion of its line."""

    def __init__(
        self, asked: Asked, lines: Lines, line: Line, entry: dict[str, Any], rule: Rule, seeds: int | None, mde: float
    ) -> None:
        self.asked, self.lines, self.line, self.rule, self.entry = asked, lines, line, rule, entry
        first = line.champion.first_seed
        _, champion = asked.side(line.base, line.champion.entries, (first,))
        work, candidate = asked.side(line.base, (*line.champion.entries, entry), (first,))
        self.identity = candidate.settings_hash
        self.is_same = champion.cells[0].key == candidate.cells[0].key
        self.metric = work.plan.study.trainer.metrics.selecting
        self.smallest = mde / self.metric.factor
        self.proposal = self._known() or self._new()
        self.entry = self.proposal.entry  # under the name that it got first
        self.most = seeds or self._room()
        first = self.proposal.first_seed or first
        self.work, self.sides = self._sides(range(first, first + self.most))

    def _sides(self, seeds: Sequence[int]) -> tuple[Work, tuple[Variant, Variant]]:
        """The champion and the candidate, under the names that they have in the line."""
        number = self.line.champion.number
        _, champion = self.asked.side(self.line.base, self.line.champion.entries, seeds)
        work, candidate = self.asked.side(self.line.base, (*self.line.champion.entries, self.entry), seeds)
        name = f"{self.entry['name']}-against-{number}"
        return work, (replace(champion, name=f"champion-{number}"), replace(candidate, name=name))

    def _known(self) -> Proposed | None:
        """This very candidate against this very champion, as it was proposed before."""
        champion = self.line.champion.number
        fitting = [it for it in self.line.proposals if it.champion == champion and it.identity == self.identity]
        promoted = next((it for it in fitting if it.promoted), None)
        return promoted or next((it for it in fitting if it.rule == self.rule), None)

    def _new(self) -> Proposed:
        from harness.stats.online import elond_level

        of_stream = [it for it in self.line.proposals if it.rule == "stream"]
        kept = sum(it.verdict == "keep" for it in of_stream)
        levels = {"stream": elond_level(self.line.alpha, len(of_stream) + 1, kept), "each": self.line.alpha}
        return Proposed(
            number=max((it.number for it in self.line.proposals), default=0) + 1,
            champion=self.line.champion.number,
            name=self.entry["name"],
            identity=self.identity,
            entry=self.entry,
            rule=self.rule,
            level=levels.get(self.rule, 1.0),
            first_seed=self._first_unseen(),
        )

    def _first_unseen(self) -> int:
        """The champion's seed after the last one that this candidate was trained with. Seeds on which it was seen, by
        `explore` or another rule, may be why it is proposed: they would count for it a second time."""
        first = self.line.champion.first_seed
        entries = (*self.line.champion.entries, self.entry)
        work, candidate = self.asked.side(self.line.base, entries, range(first, first + MOST_SEEN))
        seen = (cell.seed for cell in candidate.cells if work.cells.result(cell.key) is not None)
        return max(seen, default=first - 1) + 1

    def _room(self) -> int:
        from harness.stats.online import least_seeds

        return 1 if self.rule == "explore" else max(LEAST_ROOM, ROOM * least_seeds(self.proposal.level))

    def decide(
        self, watch: Watch, before_training: Callable[[Work, Sequence[Cell], Estimate], None], *, promote: bool
    ) -> Judged:
        if self.is_same:  # spends nothing: there is nothing to be wrong about
            same = replace(self.proposal, number=0, verdict="discard", reason=SAME_CODE)
            return self._judged(same)
        known = self.proposal
        is_repeated = known.verdict in ("keep", "discard") or (bool(known.verdict) and known.num_seeds >= self.most)
        num_cells = 0
        if not is_repeated:
            if self.lines.read(self.line.id) is None:
                self._write_beginning()
            if known not in self.line.proposals:
                self.lines.append(self.line.id, "proposed", **asdict(known))
            num_cells = self._train(watch, before_training)
            self.proposal = self._concluded()
            self.lines.append(self.line.id, "judged", **asdict(self.proposal))
        elif self.work.cells.manifest(self.line.id) is None:  # it was lost
            self._save(self._part)
        if promote and self.proposal.verdict == "keep":
            self._promote(watch, before_training)
        return replace(self._judged(self.proposal), is_repeated=is_repeated, num_cells=num_cells)

    def _write_beginning(self) -> None:
        it = self.line
        begun = {"study_run": it.study_run, "base": it.base, "alpha": it.alpha, "first_seed": it.champion.first_seed}
        self.lines.append(it.id, "begun", format=FORMAT, **begun)

    def _train(self, watch: Watch, before_training: Callable[[Work, Sequence[Cell], Estimate], None]) -> int:
        """Trains pairs of cells until the verdict is there; how many cells."""
        part = self._part
        todo, expected = unfinished(part)
        before_training(part, todo, expected)
        train_work(
            part,
            todo,
            lambda: self._save(part),
            expected,
            watch=watch,
            is_over=lambda: self._judgement().is_final,
            concerns=[it.name for it in self.sides],
        )
        return sum(part.cells.result(it.key) is not None for it in todo)

    @property
    def _part(self) -> Work:
        return replace(self.work, plan=replace(self.work.plan, variants=self.sides, comparisons=(), notes=()))

    def _save(self, part: Work) -> Manifest:
        """The manifest of the line: a study run of its own, so that its cells are in use."""
        plan = replace(part.plan, variants=(self.work.plan.variants[0], *part.plan.variants))
        made = plan.manifest(command_line())
        made = replace(
            made,
            id=self.line.id,
            variants=made.variants[1:],
            asked=part.asked,
            belongs_to=self.line.study_run,
        )
        with part.cells.updating_manifest(made.id):
            known = part.cells.manifest(made.id)
            made = extended(known, made) if known else made
            part.cells.write_manifest(made)
        return made

    def _improvements(self) -> tuple[list[float], str]:
        """Of the seeds that have ended on both sides, in order, up to the first that has not; and a candidate's failure
        where the champion does not fail."""
        found: list[float] = []
        for before, after in zip(*(it.cells for it in self.sides), strict=True):
            mine, other = (self.work.cells.result(it.key) for it in (after, before))
            if mine and (unread := self._unread(mine)):
                return found, unread
            if mine is None or other is None:
                break
            if not mine.is_finished and other.is_finished:
                return found, f"{FAILED}: seed {after.seed}: {mine.reason}"
            if self.metric.name in mine.metrics and self.metric.name in other.metrics:
                found.append(self.metric.sign * (mine.metrics[self.metric.name] - other.metrics[self.metric.name]))
        return found, ""

    def _unread(self, result: Result) -> str:
        """Why a candidate that is settings alone can do nothing: training never reads them; else empty."""
        is_code = "commit" in self.entry or "patch" in self.entry
        unread = str(result.facts.get(SETTINGS_UNREAD, "")).split(", ")
        return "" if is_code else placebo_problem(self.entry["name"], list(self.entry["overrides"]), unread)

    def _judgement(self) -> "Judgement":
        import numpy as np

        from harness.stats.online import Judgement, judge_improvements

        found, failure = self._improvements()
        if self.rule == "explore" and found and not failure:
            looks_better = found[0] > 0
            return Judgement("keep" if looks_better else "discard", "one run", 1, 0.0)
        judged = judge_improvements(np.array(found), self.proposal.level, most=self.most, smallest=self.smallest)
        return Judgement("discard", failure, len(found), judged.log_e) if failure and not judged.is_final else judged

    def _concluded(self) -> Proposed:
        import numpy as np

        from harness.stats.intervals import t_interval

        judged, (found, _) = self._judgement(), self._improvements()
        seen = np.array(found[: judged.num_seeds])
        low, high = (float(it) for it in t_interval(seen, 0.95)) if len(seen) > 1 else (None, None)
        return replace(
            self.proposal,
            verdict=judged.verdict,
            reason=judged.reason or self._shortage(),
            num_seeds=judged.num_seeds,
            log_e=judged.log_e,
            gain=float(seen.mean()) if len(seen) else None,
            low=_number(low),
            high=_number(high),
        )

    def _shortage(self) -> str:
        """Why there are too few pairs: a seed on which the champion fails says nothing of the candidate."""
        results = ((it.seed, self.work.cells.result(it.key)) for it in self.sides[0].cells)
        failed = next((f"{seed}: {it.reason}" for seed, it in results if it and not it.is_finished), "")
        return "not enough seeds ended" + (f"; the champion fails: seed {failed}" if failed else "")

    def _promote(self, watch: Watch, before_training: Callable[[Work, Sequence[Cell], Estimate], None]) -> None:
        """The next champion, with seeds that nothing before was judged by, and its number on some of them; where it was
        promoted already, what is missing of that number."""
        if not self.proposal.promoted:
            self._write_promotion()
        line = self.lines.read(self.line.id)
        assert line is not None
        champion = line.champions[self._stored(line).promoted]
        work, (_, made) = self._sides(range(champion.first_seed, champion.first_seed + FRESH))
        variant = replace(made, name=f"champion-{champion.number}")
        part = replace(work, plan=replace(work.plan, variants=(variant,), comparisons=(), notes=()))
        todo, expected = unfinished(part)
        if todo:
            before_training(part, todo, expected)
            train_work(part, todo, lambda: self._save(part), expected, watch=watch, concerns=[variant.name])

    def _write_promotion(self) -> None:
        first = fresh_seeds(self.work.cells, 1)[0]
        champion = Champion(self.line.champion.number + 1, first, (*self.line.champion.entries, self.entry))
        self.lines.append(
            self.line.id,
            "promoted",
            number=champion.number,
            proposal=self.proposal.number,
            first_seed=first,
            entries=list(champion.entries),
        )

    def _stored(self, line: Line) -> Proposed:
        return next((it for it in line.proposals if it.number == self.proposal.number), self.proposal)

    def _judged(self, proposal: Proposed) -> Judged:
        line = self.lines.read(self.line.id) or self.line
        stored = next((it for it in line.proposals if it.number == proposal.number), proposal)
        return Judged(
            self.work, line, stored, line.champion, champion_estimate(self.work.cells, line, line.champion, self.metric)
        )


def champion_estimate(cells: Cells, line: Line, champion: Champion, metric: Metric) -> tuple[float, int, float] | None:
    """A champion's mean on its own fresh seeds, how many have ended, and the standard error (NaN for one).

    Where a line began nothing was chosen: there it is that of the seeds that verdicts rest on. What else was trained
    with a champion, as many cells at a time as there are jobs, is by chance, and is not looked at.
    """
    import numpy as np

    manifest = cells.manifests().get(line.id)
    variant = manifest.variant(f"champion-{champion.number}") if manifest else None
    first = champion.first_seed
    judged = (it for it in line.proposals if it.champion == champion.number)
    seen = ((it.first_seed or first) + it.num_seeds for it in judged)
    ends = first + FRESH if champion.number else max(seen, default=first)
    mine = variant.cells.items() if variant else ()
    results = [cells.result(key) for seed, key in mine if first <= seed < ends]
    numbers = [it.metrics[metric.name] for it in results if it and metric.name in it.metrics]
    if not numbers:
        return None
    error = float(np.std(numbers, ddof=1) / np.sqrt(len(numbers))) if len(numbers) > 1 else float("nan")
    return float(np.mean(numbers)), len(numbers), error


def _number(bound: float | None) -> float | None:
    """None for NaN, which JSON has no word for."""
    return bound if bound == bound else None
