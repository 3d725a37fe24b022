"""The tables of one study run, each built once from its results: effects by design, variants, published numbers, ...

Frames for machines: numbers of metrics as they were logged, a NaN where there is no number. How they are written for
people is in `display.py`, how they become files in `formats.py`; no statistic is computed here.
"""

import contextlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from harness.errors import ResultsError
from harness.metrics import Metric, Metrics
from harness.plan.manifest import EARLIER, GREEDY, Manifest
from harness.plan.registration import smallest_that_matters
from harness.report.line_data import ChampionLine
from harness.report.overfitting import overfitting_table
from harness.stats.combinations import (
    factorial_interaction_contrasts,
    interaction_contrasts,
    shapley_contrasts,
)
from harness.stats.effect import METRIC_COLUMNS, Contrast, metric_columns
from harness.stats.examples import ExampleEffect, Right, example_effect
from harness.stats.family import EFFECT_COLUMNS, measure_families, measure_family
from harness.stats.headline import Headline, biggest_improvement
from harness.stats.marginal import marginal_effects
from harness.stats.overview import ignores_seed, summary
from harness.stats.published import compare_published
from harness.stats.values import PARAMETERS, Values, metric_values
from harness.store.load import metrics_of
from harness.study.designs.registry import DESIGNS, kind_of

EFFECTS_TABLE_COLUMNS: tuple[str, ...] = ("design", "change", *EFFECT_COLUMNS)
EXAMPLE_COLUMNS: tuple[str, ...] = (
    "design", "change", "variant", "reference", *METRIC_COLUMNS, "n", "num_examples", "mean", "low", "high",
    "population_low", "population_high", "degrees", "gained", "lost", "confidence",
)  # fmt: skip
DATA = "data_fingerprint"  # a fact, which not every training notes
PUBLISHED_COLUMNS: tuple[str, ...] = (
    "variant", "metric", "source", "published", "n", "mean", "sd", "low", "high", "run_low", "run_high",
    "difference", "difference_low", "difference_high", "p", "confidence",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Family:
    """The effects of one design: what is tested together, corrected together and shown together.

    Attributes:
        design: with its argument, such as `leave-one-out:model-1`.
        effects: EFFECT_COLUMNS, the best first, a path in its own order; `variant` is the label of the comparison.
        sides: label -> (variant, reference), by their names in the results.
    """

    design: str
    effects: pd.DataFrame
    sides: Mapping[str, tuple[str, str]]

    @property
    def kind(self) -> str:
        return self.design.partition(":")[0]

    @property
    def reference(self) -> str | None:
        """The one variant that every comparison has as its reference, or None."""
        references = {reference for _, reference in self.sides.values()}
        return references.pop() if len(references) == 1 else None

    @property
    def full(self) -> str | None:
        """The combination out of which each change is left, for `leave-one-out`, else None."""
        return next(iter(self.sides.values()))[0] if self.kind == "leave-one-out" else None


@dataclass(frozen=True, eq=False)
class Tables:
    """Everything that a report says in tables. A frame is built when it is asked for, and once.

    Args:
        results: as `load_results` gives them, with `.attrs["manifest"]`.
        load_curves: gives the frame of `harness.store.load.curves_table`; called once, when a table needs it.
        metric: name of what the effects and the variants are of; by default what the study reports.
        load_examples: gives `harness.store.load.examples_of` for the name of a metric; nothing by default.
        load_pictures: gives pictures of test examples with their labels, by their places; nothing by default.
        load_tuning: gives `harness.store.load.tuning_of`; nothing by default.
        load_lines: gives its lines of champions; nothing by default.
        confirmations: what was found about its winners on fresh seeds, a sentence each; it comes before all else.
        confirmed: the variants that these have decided on.
        tried: what `harness try` found of its training, a sentence each.

    Raises:
        ResultsError: from any frame: an unknown metric, or one that no finished cell has.
    """

    results: pd.DataFrame
    load_curves: Callable[[], pd.DataFrame]
    metric: str | None = None
    confirmations: tuple[str, ...] = ()
    confirmed: Collection[str] = ()
    tried: tuple[str, ...] = ()
    load_examples: Callable[[str], Right] = lambda metric: {}
    load_pictures: Callable[[Sequence[int]], list[tuple[Any, str]]] = lambda places: []
    load_tuning: Callable[[], tuple[pd.DataFrame, pd.DataFrame] | None] = lambda: None
    load_lines: Callable[[], Sequence[ChampionLine]] = lambda: ()

    @cached_property
    def lines(self) -> Sequence[ChampionLine]:
        """Lines of champions that `harness judge` made of this study run."""
        return self.load_lines()

    @cached_property
    def tuning(self) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Results with the variants' own settings, and of every trial; None of what was not tuned."""
        return self.load_tuning()

    @property
    def manifest(self) -> Manifest:
        manifest: Manifest = self.results.attrs["manifest"]
        return manifest

    @property
    def metrics(self) -> Metrics:
        return metrics_of(self.results)

    @property
    def subject(self) -> Metric:
        """What the effects and the variants are of."""
        return self.metrics[self.metric or self.metrics.report]

    @cached_property
    def curves(self) -> pd.DataFrame:
        return self.load_curves()

    @cached_property
    def families(self) -> Mapping[str, Family]:
        """The effects by design, single changes first."""
        return _families_of(self._measured)

    @cached_property
    def _measured(self) -> "_Measured":
        return _measured(self.results, self.metric)

    @property
    def acting_together(self) -> frozenset[str]:
        """Which of INTERACTIONS and SHAPLEY these results have; they are corrected with the designs."""
        return frozenset({INTERACTIONS, SHAPLEY} & self._measured.frames.keys())

    @cached_property
    def headline(self) -> Headline:
        """The biggest single improvement in `subject`; `chooser` says by which metric it is picked."""
        return headline(self.results, self.main_family, self.metric, confirmed=self.confirmed)

    @property
    def main_family(self) -> Family | None:
        """What the headline is about: single changes where they were trained, else the first design; None: nothing."""
        found = list(self.families.values())
        return next((family for family in found if family.kind == "add-one"), found[0] if found else None)

    @cached_property
    def effects(self) -> pd.DataFrame:
        return effects_table(self.families)

    @cached_property
    def right(self) -> Right:
        """Which test examples the finished cells got right, of `subject`; none of a metric that is no share of them."""
        finished = self.results[self.results["status"] == "finished"]
        held = set(zip(finished["variant"], finished["seed"], strict=True))
        return {place: it for place, it in self.load_examples(self.subject.name).items() if place in held}

    @cached_property
    def examples(self) -> pd.DataFrame:
        """What each effect says of new test examples: EXAMPLE_COLUMNS, a row per comparison, in the order of `effects`.

        Raises:
            ResultsError: no cell kept which examples it got right.
        """
        rows = []
        for family in self.families.values() if self.right else ():
            for label in family.effects["variant"]:
                found = self.example_effect(*family.sides[label])
                if found is not None:
                    rows.append(_example_row(family, label, found) | metric_columns(self.subject))
        if not rows:
            raise ResultsError(
                f"no two cells that are compared kept which examples of {self.subject.name} they got right; training "
                "does so by run.finish(..., examples={...})."
            )
        return pd.DataFrame(rows, columns=list(EXAMPLE_COLUMNS))

    def example_effect(self, variant: str, reference: str) -> ExampleEffect | None:
        """One effect over examples; None where cells kept none, or the two were tested on other data."""
        if not self.right or len(self._data.get(variant, set()) | self._data.get(reference, set())) > 1:
            return None
        return example_effect(self.right, variant, reference)

    @cached_property
    def _data(self) -> Mapping[str, set[str]]:
        """The fingerprints of the data of each variant's finished cells, where training notes them."""
        if DATA not in self.results.columns:
            return {}
        finished = self.results[self.results["status"] == "finished"]
        found: dict[str, set[str]] = {}
        for variant, data in zip(finished["variant"], finished[DATA], strict=True):
            found.setdefault(variant, set()).add(str(data))
        return found

    @cached_property
    def variants(self) -> pd.DataFrame:
        """A row per variant in the order of the plan: n_ok of n, mean, sd, cost, and what it is in words."""
        frame = summary(self.results, metric=self.metric).set_index("variant")
        summaries = {it.name: it.summary for it in self.manifest.variants}
        frame = frame.reindex([name for name in summaries if name in frame.index]).reset_index()
        frame = frame.assign(summary=frame["variant"].map(summaries))
        return frame.astype({"summary": "str", "outcomes": "str", "changes": "str", PARAMETERS: "Int64"})

    @cached_property
    def published(self) -> pd.DataFrame:
        return published_table(self.results)

    @cached_property
    def overfitting(self) -> pd.DataFrame:
        return overfitting_table(self.results, self.curves)

    @cached_property
    def interactions(self) -> pd.DataFrame:
        """Every pair whose combination and singles were trained; of a complete factorial, averaged over the others."""
        if INTERACTIONS in self._measured.frames:
            return self._measured.frames[INTERACTIONS]
        raise ResultsError("no combination of two changes stands beside each of them alone; use the design `pairs`.")

    @cached_property
    def shapley(self) -> pd.DataFrame:
        if SHAPLEY in self._measured.frames:
            return self._measured.frames[SHAPLEY]
        changes = _factorial_changes(self.manifest)
        if not changes:
            raise ResultsError(
                "there is no factorial in these results; `harness ablate --design factorial` trains one."
            )
        shapley_contrasts(self._measured.values, changes)  # says what is missing
        raise AssertionError("a factorial that is complete was measured")

    @cached_property
    def marginal(self) -> pd.DataFrame:
        """Effects averaged over all combinations seen, by a linear model."""
        return marginal_effects(self.results, metric=self.metric)

    @property
    def cells(self) -> pd.DataFrame:
        return self.results


# The names of the tables: properties of `Tables`, and names of files.
TABLES = ("effects", "variants", "cells", "published", "overfitting", "examples", "interactions", "shapley", "marginal")


INTERACTIONS, SHAPLEY = "interactions", "shapley"


class _Measured(NamedTuple):
    """Everything that a study run tests of one metric.

    Attributes:
        frames: EFFECT_COLUMNS by design, and those of interactions and Shapley values, where the variants for them are.
        sides: design -> label -> (variant, reference).
    """

    values: Values
    frames: Mapping[str, pd.DataFrame]
    sides: Mapping[str, Mapping[str, tuple[str, str]]]


def families(results: pd.DataFrame, metric: str | None = None) -> dict[str, Family]:
    """The effects of every design of a study run: name of the design -> Family. The baseline alone gives none.

    All designs are corrected together, with the interactions and Shapley values that their variants allow: a study run
    makes a false claim with probability .05 at most, whichever of its tables one reads. The main design, which was
    declared first, weighs four fifths at least (`plan.power.OTHERS_WEIGH`). The steps of a greedy path were chosen by
    the very results that are tested: they are exploratory, can claim nothing, and cost the others nothing.

    Single changes come first, and then the other designs in their documented order, whichever ran first.
    """
    return _families_of(_measured(results, metric))


def main_designs(manifest: Manifest) -> list[str]:
    """The designs that the study run was declared for: those of the kind that it compared first. A change on top of
    another is a single change, too; and what a change was before its edit was tried as it is now."""
    kinds = {it.design: kind_of(it.design) for it in manifest.comparisons if it.design != GREEDY}
    first = next(iter(kinds.values()), "")
    return [design for design, kind in kinds.items() if kind in (first, EARLIER)]


def _families_of(measured: _Measured) -> dict[str, Family]:
    found = {}
    for design, pairs in sorted(measured.sides.items(), key=_rank):
        frame = measured.frames[design]
        if not design.startswith("path"):
            frame = frame.sort_values(["improvement", "variant"], ascending=[False, True], ignore_index=True)
        found[design] = Family(design, frame, pairs)
    return found


def _measured(results: pd.DataFrame, metric: str | None) -> _Measured:
    manifest: Manifest = results.attrs["manifest"]
    values = metric_values(results, metric)
    # What was declared to matter is so in the metric that is reported.
    delta = smallest_that_matters(manifest) if values.metric == manifest.metrics.reporting else 0.0
    sides: dict[str, dict[str, tuple[str, str]]] = {}
    for it in manifest.comparisons:
        sides.setdefault(it.design, {})[it.label] = (it.variant, it.reference)
    tested = {
        design: [Contrast(label, reference, {variant: 1.0, reference: -1.0}) for label, (variant, reference) in it]
        for design, it in ((design, pairs.items()) for design, pairs in sides.items())
    }
    greedy = tested.pop(GREEDY, None)
    main, alpha = main_designs(manifest), 0.05
    tested |= _acting_together(values, manifest) if tested else {}
    exploratory = manifest.exploratory or bool(ignores_seed(results))
    frames = measure_families(values, tested, main=main, alpha=alpha, delta=delta, exploratory=exploratory)
    if greedy is not None:
        frames[GREEDY] = measure_family(values, greedy, alpha=alpha, delta=delta, exploratory=True)
    return _Measured(values, frames, sides)


def _acting_together(values: Values, manifest: Manifest) -> dict[str, list[Contrast]]:
    """Every pair whose combination and singles were trained; of a complete factorial, averaged over the others."""
    found = {}
    changes = _factorial_changes(manifest)
    if changes:
        with contextlib.suppress(ResultsError):  # not complete
            found[SHAPLEY] = shapley_contrasts(values, changes)
            found[INTERACTIONS] = factorial_interaction_contrasts(values, changes)
    if not found.get(INTERACTIONS):
        with contextlib.suppress(ResultsError):  # no pair beside each of its changes alone
            found[INTERACTIONS] = interaction_contrasts(values)
    return found


def _factorial_changes(manifest: Manifest) -> list[str]:
    held = {it.name: it.changes for it in manifest.variants}
    return sorted({change for it in manifest.comparisons if it.design == "factorial" for change in held[it.variant]})


def _rank(item: tuple[str, object]) -> int:
    kind = kind_of(item[0])  # on-top after add-one: the sort keeps the order of the plan
    return list(DESIGNS).index(kind) if kind in DESIGNS else len(DESIGNS)


def _example_row(family: Family, label: str, found: ExampleEffect) -> dict[str, Any]:
    variant, reference = family.sides[label]
    named = {"design": family.design, "change": label, "variant": variant, "reference": reference}
    numbers = ("num_examples", "mean", "low", "high", "population_low", "population_high", "degrees")
    counted = {"n": len(found.seeds), "gained": found.num_gained, "lost": found.num_lost, "confidence": 0.95}
    return named | {name: getattr(found, name) for name in numbers} | counted


def effects_table(by_design: Mapping[str, Family]) -> pd.DataFrame:
    """The families below each other, columns EFFECTS_TABLE_COLUMNS; `variant` and `reference` are names of variants."""
    parts = []
    for family in by_design.values():
        labels = family.effects["variant"]
        variants = labels.map({label: variant for label, (variant, _) in family.sides.items()}).astype("str")
        part = family.effects.assign(design=family.design, change=labels, variant=variants)
        parts.append(part.astype({"design": "str", "change": "str"}))
    if not parts:
        return pd.DataFrame(columns=list(EFFECTS_TABLE_COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(EFFECTS_TABLE_COLUMNS)]


def headline(
    results: pd.DataFrame, family: Family | None, metric: str | None = None, *, confirmed: Collection[str] = ()
) -> Headline:
    """The biggest improvement of one design in a metric, picked by another one where there is one to pick by."""
    if family is None:
        return biggest_improvement(pd.DataFrame(columns=list(EFFECT_COLUMNS)))
    metrics, manifest = metrics_of(results), results.attrs["manifest"]
    study = manifest.asked or manifest.study
    picked_by = chooser(metrics, metrics[metric or metrics.report])
    if picked_by is None or not results[picked_by.name].notna().any():
        return biggest_improvement(family.effects, study=study, confirmed=confirmed)
    chosen_by = families(results, picked_by.name)[family.design].effects
    return biggest_improvement(family.effects, chosen_by=chosen_by, study=study, confirmed=confirmed)


def chooser(metrics: Metrics, metric: Metric) -> Metric | None:
    """The metric by which the biggest improvement in another one is picked, so that the number used to choose is not
    the number reported; None where a metric speaks for itself.

    For the metric that the study reports it is the one that selects, for the others of that split their twins.
    """
    if metric == metrics.reporting:
        found: Metric | None = metrics.selecting
    elif metric.split == metrics.reporting.split:
        found = metrics.twin(metric, metrics.selecting.split)
    else:
        found = None
    return None if found == metric else found


def published_table(results: pd.DataFrame) -> pd.DataFrame:
    """Ours against each published number of the study; a variant that has not run has n = 0 and no numbers of ours."""
    finished = results[results["status"] == "finished"]
    rows = []
    manifest: Manifest = results.attrs["manifest"]
    for it in manifest.published:
        row: dict[str, Any] = {"n": 0}
        mine = finished[finished["variant"] == it["variant"]]
        if mine[it["metric"]].notna().any():
            compared = compare_published(mine, it["variant"], it["value"], metric=it["metric"])
            row |= {name: getattr(compared, name) for name in PUBLISHED_COLUMNS if hasattr(compared, name)}
        named = {"variant": it["variant"], "metric": it["metric"], "source": it["source"], "published": it["value"]}
        rows.append(row | named)
    kinds = {"variant": "str", "metric": "str", "source": "str", "n": "int64"}
    frame = pd.DataFrame(rows, columns=list(PUBLISHED_COLUMNS))
    return frame.astype({name: kinds.get(name, "float64") for name in PUBLISHED_COLUMNS})


def effects_json(
    results: pd.DataFrame, metric: str | None = None, *, confirmed: Collection[str] = ()
) -> dict[str, Any]:
    """The answer of `harness ablate` for programs: study run, headline, effects, variants; None for no number."""
    tables = Tables(results, load_curves=lambda: pd.DataFrame(), metric=metric, confirmed=confirmed)
    run = {name: getattr(tables.manifest, name) for name in ("id", "study", "profile", "exploratory")}
    answer = {"variant": tables.headline.variant, "is_supported": tables.headline.is_supported}
    return run | {
        "metric": tables.subject.name,
        "headline": answer | {"sentence": tables.headline.sentence},
        "effects": records(tables.effects),
        "variants": records(tables.variants),
    }


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """The rows, with their columns as attributes; which ones there are, the function that built the frame says."""
    return list(frame.itertuples(index=False))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A dict per row with plain JSON values: NaN, NA and infinities become None."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict(orient="records")]


def _plain(value: Any) -> Any:
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value
