"""The answer of a search: which change is the biggest single improvement, three ways; the best combination; how simple
one may make it.

All of it looks at the metric by which the study selects; the one that it reports is not read here, nor shown: that is
what `harness confirm` is for, on fresh seeds. What comes after the first look at data is labelled exploratory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from harness.errors import NoValueError, ResultsError
from harness.metrics import Metric
from harness.plan.plan import Plan
from harness.plan.variants import Variant
from harness.search.space import Space
from harness.search.trials import FAILED, REFUSED, RETRY_OF, best_trial, combination
from harness.stats import (
    SimplestChoice,
    effects,
    interactions,
    leave_one_out_effects,
    marginal_effects,
    shapley_values,
    simplest_within_one_se,
)
from harness.stats.effect import Contrast
from harness.stats.family import EFFECT_COLUMNS, measure_family
from harness.stats.values import metric_values
from harness.stats.wording import describe_cells
from harness.store.cells import Cells
from harness.store.load import results_table
from harness.study.designs.comparisons import Changes, Comparison

LEAST_FOR_IMPORTANCE = 4  # trials; a forest on fewer says nothing


@dataclass(frozen=True, eq=False)
class Answer:
    """What a search found. Tables are those of `harness.stats`, on the selecting metric (as logged), exploratory.

    Attributes:
        search: the name of the Optuna study.
        outcomes: number of trials by outcome: complete, pruned, failed, retried, refused, running, waiting.
        table: the cells of every combination that was not pruned, as `harness.load_results` gives them.
        best, best_mean: the combination with the best mean of the selecting metric, the first of equals.
        alone: each change added to the baseline.
        left_out: each change of the best combination, taken out of it; a row without n was not trained.
        averaged: each change averaged over all combinations seen, by a linear model with seed blocks.
        shapley: exact Shapley values; None unless every combination was trained.
        gaps: each change of the best combination: alone minus left out. Not zero means that it interacts with others.
        pairs: interactions of two changes, as far as the combinations for them were tried.
        importance: fANOVA's share of the variance by parameter (Hutter et al. 2014), which adds up to 1.
        simplest: None with one seed, where there is no standard error.
        notes: what the reader must know beside the numbers, a sentence each.
    """

    search: str
    plan: Plan
    outcomes: dict[str, int]
    table: pd.DataFrame
    best: Variant
    best_mean: float
    alone: pd.DataFrame
    left_out: pd.DataFrame
    averaged: pd.DataFrame
    shapley: pd.DataFrame | None
    gaps: pd.DataFrame
    pairs: pd.DataFrame
    importance: dict[str, float]
    simplest: SimplestChoice | None
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> Metric:
        """By which the search chose, and which every number here is of."""
        return self.plan.study.trainer.metrics.selecting

    @property
    def num_combinations(self) -> int:
        return int(self.table["variant"].nunique())


def make_answer(study: optuna.Study, space: Space, cells: Cells, *, notes: Sequence[str] = ()) -> Answer:
    """The answer from what there is at the moment, also in the middle of a search.

    Raises:
        NoValueError: no combination has a value yet.
        ResultsError: its cells are in another store.
    """
    trials = study.get_trials(deepcopy=False)
    tried = [trial for trial in trials if trial.state == TrialState.COMPLETE or FAILED in trial.user_attrs]
    changes = {it for trial in tried if (it := combination(trial, space)) is not None}
    best_one = best_trial(trials, space)
    if best_one is None or best_one.value is None:
        raise NoValueError("no combination has a value yet. Run the same command again: it continues.")
    best = combination(best_one, space) or ()
    plan = _plan_of(space, changes, best)
    table = results_table(cells, replace(plan.manifest(), exploratory=True))
    metric = space.metric.name
    if not (table["status"] == "finished").any():
        raise ResultsError(
            f"{cells.root}: holds no cell of this search; it was made with another --store. Name that one."
        )
    names = {variant.changes: variant.name for variant in plan.variants}
    singles = {names[(name,)]: name for name in space.changes if (name,) in changes}
    return Answer(
        search=study.study_name,
        plan=plan,
        outcomes=_outcomes(trials),
        table=table,
        best=next(variant for variant in plan.variants if variant.changes == best),
        best_mean=best_one.value,
        alone=_alone(table, singles, metric),
        left_out=leave_one_out_effects(table, names[best], metric=metric, exploratory=True) if best else _empty(),
        averaged=marginal_effects(table, metric=metric) if any(changes) else pd.DataFrame(),
        shapley=_shapley(table, space),
        gaps=_gaps(table, best, names, metric),
        pairs=_pairs(table, metric),
        importance=_importance(study, trials),
        simplest=_simplest(table, trials, space, names),
        notes=(*notes, *_notes(trials, table, [names[it] for it in changes], space)),
    )


def _alone(table: pd.DataFrame, singles: Mapping[str, str], metric: str) -> pd.DataFrame:
    """Effects by change; a combination of one change may have given its variant another name."""
    if not singles:
        return _empty()
    frame = effects(table, variants=list(singles), metric=metric, exploratory=True)
    return frame.assign(variant=frame["variant"].map(singles))


def _plan_of(space: Space, changes: set[Changes], best: Changes) -> Plan:
    """Exactly the combinations that were tried, and the comparisons that the figures draw."""
    plan = space.plan
    names = sorted(changes | {()}, key=lambda it: (len(it), it))
    comparisons = [Comparison("add-one", name, (name,), ()) for name in space.changes if (name,) in changes]
    for name in best:
        rest = tuple(other for other in best if other != name)
        if rest in changes:
            comparisons.append(Comparison("leave-one-out:best", name, best, rest))
    variants = tuple(plan.make_variant(it) for it in names)
    return replace(plan, variants=variants, comparisons=tuple(comparisons), notes=())


def _failed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials without a value because of a cell, and not tried again since."""
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [trial for trial in trials if FAILED in trial.user_attrs and trial.number not in retried]


def _outcomes(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    outcomes: dict[str, int] = {}
    failed = {trial.number for trial in _failed(trials)}
    for trial in trials:
        name = trial.state.name.lower()
        if trial.state == TrialState.FAIL:
            name = "failed" if trial.number in failed else "retried"
        elif REFUSED in trial.user_attrs:
            name = "refused"
        outcomes[name] = outcomes.get(name, 0) + 1
    return outcomes


def _shapley(table: pd.DataFrame, space: Space) -> pd.DataFrame | None:
    try:
        return shapley_values(table, space.changes, metric=space.metric.name, exploratory=True)
    except ResultsError:  # not every combination was trained, or there are too many changes
        return None


def _pairs(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    try:
        return interactions(table, metric=metric, exploratory=True)
    except ResultsError:  # no pair beside each of its changes alone
        return _empty()


def _gaps(table: pd.DataFrame, best: Changes, names: dict[Changes, str], metric: str) -> pd.DataFrame:
    """Per seed: (y_change - y_baseline) - (y_best - y_best without the change). Zero if all effects just added up."""
    contrasts = []
    for name in best if len(best) > 1 else ():
        rest = tuple(other for other in best if other != name)
        if rest in names and (name,) in names:
            weights = {names[(name,)]: 1.0, names[()]: -1.0, names[best]: -1.0, names[rest]: 1.0}
            contrasts.append(Contrast(name, "alone minus left out", weights))
    if not contrasts:
        return _empty()
    return measure_family(metric_values(table, metric), contrasts, alpha=0.05, delta=0.0, exploratory=True)


def _importance(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    values = {trial.value for trial in trials if trial.state == TrialState.COMPLETE}
    if len(values) < LEAST_FOR_IMPORTANCE:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)  # the default, PED-ANOVA, misleads on few choices
    shares: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}


def _simplest(
    table: pd.DataFrame, trials: Sequence[FrozenTrial], space: Space, names: dict[Changes, str]
) -> SimplestChoice | None:
    complete = {combination(trial, space) for trial in trials if trial.state == TrialState.COMPLETE}
    try:
        return simplest_within_one_se(
            table, metric=space.metric.name, variants=sorted(names[it] for it in complete if it is not None)
        )
    except ResultsError:
        return None


def _notes(trials: Sequence[FrozenTrial], table: pd.DataFrame, tried: Sequence[str], space: Space) -> list[str]:
    notes = []
    outcomes = _outcomes(trials)
    pruned = outcomes.get("pruned", 0)
    if pruned:
        notes.append(f"{pruned} pruned trial{'s have' if pruned > 1 else ' has'} no value and no part in this answer.")
    for trial in _failed(trials):
        notes.append(f"trial {trial.number} ({trial.user_attrs.get('combination')}): {trial.user_attrs[FAILED]}")
    absent = sorted(set(table[table["status"] == "missing"]["variant"]) & set(tried))
    if absent:
        notes.append(
            f"{len(absent)} combination{'s have' if len(absent) > 1 else ' has'} cells that are not in this store "
            f"({describe_cells(absent, limit=3)}): they were trained with another --store, or deleted."
        )
    left = outcomes.get("waiting", 0) + outcomes.get("running", 0)
    if left:
        notes.append(f"{left} trial{'s' * (left > 1)} not finished: the same command goes on with them.")
    if len(space.plan.seeds) == 1:
        notes.append("One seed: no interval, and nothing about the next seed.")
    if space.clashes:
        notes.append(f"Impossible combinations are left out. {' '.join(sorted(space.clashes.values()))}")
    for name, below in space.needs.items():
        notes.append(f"{name} stands only on {' + '.join(below)}, so it is not compared with the baseline alone.")
    return notes


def _empty() -> pd.DataFrame:
    return pd.DataFrame(columns=list(EFFECT_COLUMNS))
