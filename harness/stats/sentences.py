"""The generated sentences of a report: the line that describes one effect in full, and those of the other comparisons.

Each sentence says everything that a reader needs in order to judge the number in it. The sentence below the table of
effects is in `headline.py`.
"""

import math
from typing import Any

import pandas as pd

from harness.errors import ResultsError
from harness.stats.effect import MEANINGFUL_P_IMPROVE, Effect
from harness.stats.headline import refusal
from harness.stats.noise import NoiseFloor
from harness.stats.published import PublishedComparison
from harness.stats.wording import (
    Unit,
    describe_cells,
    format_difference,
    format_interval,
    format_p,
    format_value,
    metric_words,
)

CHECKPOINT_RULE = "the checkpoint with the lowest validation loss"
VARIED = "initial weights, order, augmentation and dropout"


def report_line(
    family: pd.DataFrame,
    variant: str,
    table: pd.DataFrame,
    *,
    checkpoint_rule: str = CHECKPOINT_RULE,
    varied: str = VARIED,
    unit: Unit = "fraction",
) -> str:
    """One effect with everything that STATS rule 12 asks for, as one paragraph to paste.

    Metric and checkpoint rule; n and the seeds; what varied; pairing; estimate [t interval]; dz; p raw and Holm (m);
    P(improve) [interval]; detectable effect; device and library versions; commit and whether dirty; data fingerprint;
    n_ok/n; cost.

    Args:
        family: what `effects` (or one of its kin) returned; table: the results it was computed from.
        variant: a row of the family.
        varied: what differs between the seeds; say so where the split varies too.

    Raises:
        ResultsError: the variant is no row of the family.
    """
    rows = family[family["variant"] == variant]
    if rows.empty:
        raise ResultsError(f"{variant!r} is not in this family of effects: {', '.join(family['variant'])}.")
    row: Any = next(rows.itertuples())
    measured = (
        f"{metric_words(row.metric).capitalize()} at {checkpoint_rule}; {row.variant} against {row.reference} on"
        f" {row.n} of {row.n_planned} seeds ({row.seeds or 'none'}), between which {varied} vary; paired by"
        f" seed{_pairing(row)}."
    )
    missing = f"Missing: {row.missing}." if row.missing else ""
    return " ".join(part for part in (measured, missing, _inference(row, unit), _provenance(row, table)) if part)


def noise_floor_line(floor: NoiseFloor, *, unit: Unit = "fraction") -> str:
    """The A/A result in words: the noise, what luck alone shows, the false-positive rate and how little it may say."""
    metric = floor.metric
    return (
        f"A/A of {floor.variant} on {floor.num_seeds} seeds: sd {format_value(floor.sd, metric, unit)} between seeds"
        f" [95% {format_interval(floor.sd_low, floor.sd_high, metric, unit, signed=False)}]. Against itself, first"
        f" {floor.num_pairs} seeds minus last {floor.num_pairs}: {format_difference(floor.difference, metric, unit)}"
        f" [95% {format_interval(floor.low, floor.high, metric, unit)}]. In {floor.num_splits} random splits into"
        f" {floor.num_pairs} pairs, 95% of the differences stay under"
        f" {format_value(floor.largest_by_luck, metric, unit)}; false positives at {floor.alpha:g}:"
        f" {floor.rate_t:.3f} by t [95% {floor.rate_low:.3f}, {floor.rate_high:.3f}, as the splits share seeds],"
        f" {floor.rate_sign_flip:.3f} by sign-flip."
    )


def published_line(comparison: PublishedComparison, *, unit: Unit = "fraction") -> str:
    """Ours against a published number: the difference, its test, and where one more run of ours would land."""
    metric, level = comparison.metric, f"{100 * comparison.confidence:g}%"
    theirs = format_value(comparison.published, metric, unit)
    theirs += " (no spread published)" if comparison.published_n == 1 else f" (mean of {comparison.published_n} runs)"
    if comparison.n == 0:
        return f"{metric_words(metric).capitalize()} of {comparison.variant}: no finished seed to set against {theirs}."
    ours = f"{format_value(comparison.mean, metric, unit)} on {comparison.n} seed" + ("s" if comparison.n > 1 else "")
    head = f"{metric_words(metric).capitalize()} of {comparison.variant}: ours {ours}, published {theirs}, difference"
    head = f"{head} {format_difference(comparison.difference, metric, unit)}"
    if math.isnan(comparison.p):
        return f"{head}; the spread between our seeds is unknown, so there is no interval."
    text = (
        f"{head} [{level} {format_interval(comparison.difference_low, comparison.difference_high, metric, unit)}],"
        f" {comparison.method} p {format_p(comparison.p)}"
    )
    if comparison.published_n > 1:
        return text + "."
    inside = comparison.run_low <= comparison.published <= comparison.run_high
    return (
        f"{text}. One more run of ours would land in"
        f" [{format_interval(comparison.run_low, comparison.run_high, metric, unit, signed=False)}]; the published"
        f" value lies {'inside' if inside else 'outside'}."
    )


def confirmation_line(confirmed: Effect, searched: Effect, *, unit: Unit = "fraction") -> str:
    """The headline of a confirmation, with the estimate that led to it beside it (STATS rule 8).

    One change, one test, on seeds that nothing used before: no correction is due.

    Raises:
        ResultsError: a seed of the confirmation was used to find the winner, or the two are different comparisons.
    """
    if (confirmed.variant, confirmed.reference) != (searched.variant, searched.reference):
        raise ResultsError(
            f"{confirmed.variant} against {confirmed.reference} cannot confirm {searched.variant} against"
            f" {searched.reference}."
        )
    reused = sorted(set(confirmed.seeds) & set(searched.seeds))
    if reused:
        raise ResultsError(
            f"seeds {describe_cells(reused)} were used to find {searched.variant}, so they cannot confirm it; use"
            " fresh ones."
        )
    alpha = 1 - confirmed.confidence
    estimate = f"{format_difference(confirmed.mean, confirmed.metric, unit)}{_interval(confirmed, unit)}"
    if not confirmed.smallest_p <= alpha:
        outcome = f"Not decided. {refusal(confirmed.n, alpha)}"
    elif confirmed.p <= alpha:
        outcome = "Confirmed." if confirmed.improvement > 0 else "Refuted: it is worse."
    else:
        outcome = "Not confirmed."
    missing = f" Missing: {describe_cells(confirmed.missing)}." if confirmed.missing else ""
    return (
        f"{outcome} {confirmed.variant} against {confirmed.reference} on {confirmed.n} fresh seeds: {estimate} in"
        f" {metric_words(confirmed.metric)}, p {format_p(confirmed.p)}.{missing} The estimate that led to it:"
        f" {format_difference(searched.mean, searched.metric, unit)}{_interval(searched, unit)} in"
        f" {metric_words(searched.metric)} on {searched.n} seeds."
    )


def _interval(effect: Effect, unit: Unit) -> str:
    return f" [{100 * effect.confidence:g}% {format_interval(effect.low, effect.high, effect.metric, unit)}]"


def _pairing(row: Any) -> str:
    if math.isnan(row.correlation):
        return ""
    return f" (correlation {row.correlation:.2f}, variance ratio {row.variance_ratio:.2f})"


def _inference(row: Any, unit: Unit) -> str:
    if row.n == 0:
        return "No result yet."
    estimate = f"Effect {format_difference(row.mean, row.metric, unit)}"
    if row.n == 1:
        return f"{estimate}; one seed, so there is no interval and no test."
    bounds = f"[{100 * row.confidence:g}% t {format_interval(row.low, row.high, row.metric, unit)}]"
    dz = "n/a" if math.isnan(row.dz) else f"{row.dz:.2f}"
    p_improve = f"P(improve) {row.p_improve:.2f} [{row.p_improve_low:.2f}, {row.p_improve_high:.2f}]"
    meaningful = f"{'' if row.is_meaningful else 'not '}meaningful at {MEANINGFUL_P_IMPROVE:g}"
    parts = [
        f"{estimate} {bounds}, dz {dz}",
        f"sign-flip p {format_p(row.p)} raw, {format_p(row.p_holm)} Holm (m = {row.m}), paired t p {format_p(row.p_t)}",
        f"{p_improve}, {meaningful}",
    ]
    if row.detectable > 0:
        parts.append(f"detectable with power 0.8: {format_value(row.detectable, row.metric, unit)}")
    if row.note:
        parts.append(row.note)
    parts.append(f"verdict: {row.verdict}")
    claims = row.verdict in ("improves", "hurts", "equivalent")
    return "; ".join(parts) + "." + ("" if claims else f" {refusal(row.n, row.alpha, row.m)}".rstrip())


def _provenance(row: Any, table: pd.DataFrame) -> str:
    """Of the cells of the two compared variants; of all cells where an effect takes more than two variants."""
    sides = table["variant"].isin([row.variant, row.reference])
    cells = table[sides] if table.loc[sides, "variant"].nunique() == 2 else table
    cells = cells.drop_duplicates("key")
    finished = cells[cells["status"] == "finished"]
    commits = finished["commit"].astype(str) + finished["dirty"].map({True: " (dirty)", False: " (clean)"}).astype(str)
    threads = finished["threads"].map(lambda count: f"{int(count)} thread" + ("s" if count > 1 else ""))
    hours = cells["seconds"].fillna(0).sum() / 3600
    return (
        f"Device {_distinct(finished['device'])}, precision {_distinct(finished['precision'])}, {_distinct(threads)};"
        f" versions {_distinct(finished['versions'])}; commit {_distinct(commits)}; data"
        f" {_distinct(finished['data_fingerprint'])}; {len(finished)} of {len(cells)} cells finished; cost"
        f" {hours:.2f} hours of training."
    )


def _distinct(column: "pd.Series[str]") -> str:
    """Every value that occurs: where conditions were mixed, the line shows it."""
    return " and ".join(sorted({str(value) or "not recorded" for value in column})) or "not recorded"
