"""The generated sentences of a report: the line that describes one effect in full, and those of the other comparisons.

Each sentence says everything that a reader needs in order to judge the number in it. The sentence below the table of
effects is in `headline.py`.
"""

import math
from typing import Any

import pandas as pd

from harness.errors import ResultsError
from harness.stats.effect import MEANINGFUL_P_IMPROVE, metric_of_row
from harness.stats.examples import ExampleEffect
from harness.stats.headline import adjusted, why_no_claim
from harness.stats.noise import NoiseFloor
from harness.stats.published import PublishedComparison
from harness.stats.wording import format_p
from harness.texts import counted

CHECKPOINT_RULE = "as training reports it"
VARIED = "all random draws of training"
HELD = "whatever training does not draw from its seed"


def report_line(
    family: pd.DataFrame,
    variant: str,
    table: pd.DataFrame,
    *,
    checkpoint_rule: str = CHECKPOINT_RULE,
    varied: str = VARIED,
    held: str = HELD,
    examples: ExampleEffect | None = None,
) -> str:
    """One effect with everything that STATS rule 12 asks for, as one paragraph to paste.

    Metric and checkpoint rule; n and the seeds; what varied, and what did not; pairing; estimate [t interval]; dz; p
    raw and adjusted; P(improve) [interval]; detectable effect; the interval for new test examples, where they are
    known; device and library versions; commit and whether dirty; data fingerprint; n_ok/n; cost.

    Args:
        family: what `effects` (or one of its kin) returned; table: the results it was computed from.
        variant: a row of the family.
        checkpoint_rule: when the metric was taken, such as "at the step with the lowest validation loss".
        varied: what differs between the seeds; say so where the split varies too. held: what does not.
        examples: the same effect over test examples.

    Raises:
        ResultsError: the variant is no row of the family.
    """
    rows = family[family["variant"] == variant]
    if rows.empty:
        raise ResultsError(f"{variant!r} is not in this family of effects: {', '.join(family['variant'])}.")
    row: Any = next(rows.itertuples())
    metric = metric_of_row(row)
    rule = f" {checkpoint_rule}" if metric.split else ""  # a cost is of the whole training
    measured = (
        f"{_capitalized(metric.words)}{rule}; {row.variant} against {row.reference} on"
        f" {row.n} of {counted(row.n_planned, 'seed')} ({row.seeds or 'none'}), between which {varied} vary; paired by"
        f" seed{_pairing(row)}. Held constant: {held}."
    )
    missing = f"Missing: {row.missing}." if row.missing else ""
    beyond = _beyond(examples, row) if examples is not None and row.n > 1 else ""
    return " ".join(part for part in (measured, missing, _inference(row), beyond, _provenance(row, table)) if part)


def noise_floor_line(floor: NoiseFloor) -> str:
    """The A/A result in words: the noise, what luck alone shows, the false-positive rate and how little it may say."""
    metric = floor.metric
    spread = metric.say_interval(floor.sd_low, floor.sd_high, "95%", signed=False)
    return (
        f"A/A of {floor.variant} on {floor.num_seeds} seeds: sd {metric.say_difference(floor.sd, signed=False)} in"
        f" {metric.words} between seeds [{spread}]. Against"
        f" itself, first {floor.num_pairs} seeds minus last {floor.num_pairs}:"
        f" {metric.say_difference(floor.difference)} [{metric.say_interval(floor.low, floor.high, '95%')}]. In"
        f" {floor.num_splits} random splits into {floor.num_pairs} pairs, 95% of the differences stay under"
        f" {metric.say_difference(floor.largest_by_luck, signed=False)}; false positives at {floor.alpha:g}:"
        f" {floor.rate_t:.3f} by t [95% {floor.rate_low:.3f}, {floor.rate_high:.3f}, as the splits share seeds],"
        f" {floor.rate_sign_flip:.3f} by sign-flip."
    )


def published_line(comparison: PublishedComparison) -> str:
    """Ours against a published number: the difference, its test, and where one more run of ours would land."""
    metric, level = comparison.metric, f"{100 * comparison.confidence:g}%"
    name = f"{_capitalized(metric.words)} of {comparison.variant}"
    theirs = metric.say(comparison.published)
    theirs += " (no spread published)" if comparison.published_n == 1 else f" (mean of {comparison.published_n} runs)"
    if comparison.n == 0:
        return f"{name}: no finished seed to set against {theirs}."
    ours = f"{metric.say(comparison.mean)} on {comparison.n} seed" + ("s" if comparison.n > 1 else "")
    head = f"{name}: ours {ours}, published {theirs}, difference {metric.say_difference(comparison.difference)}"
    if math.isnan(comparison.p):
        return f"{head}; the spread between our seeds is unknown, so there is no interval."
    text = (
        f"{head} [{metric.say_interval(comparison.difference_low, comparison.difference_high, level)}],"
        f" {comparison.method} p {format_p(comparison.p)}"
    )
    if comparison.published_n > 1:
        return text + "."
    inside = comparison.run_low <= comparison.published <= comparison.run_high
    return (
        f"{text}. One more run of ours would land in"
        f" [{metric.say_interval(comparison.run_low, comparison.run_high, signed=False)}]; the published"
        f" value lies {'inside' if inside else 'outside'}."
    )


def _beyond(examples: ExampleEffect, row: Any) -> str:
    """What the effect says of other test examples."""
    metric = metric_of_row(row)
    if math.isnan(examples.population_low):
        return ""
    low, high = examples.population_low, examples.population_high
    interval = metric.say_interval(low, high, f"{100 * row.confidence:g}% two-way")
    return (
        f"The t interval speaks of new seeds on the same {examples.num_examples:,} test examples; of new examples, too:"
        f" {metric.say_difference(examples.mean)} [{interval}],"
        f" on {len(examples.seeds)} seeds; {examples.num_gained:,} examples are gained, {examples.num_lost:,} lost."
    )


def _capitalized(words: str) -> str:
    """The first letter alone: a metric's name may hold capitals of its own."""
    return words[:1].upper() + words[1:]


def _pairing(row: Any) -> str:
    if math.isnan(row.correlation):
        return ""
    return f" (correlation {row.correlation:.2f}, variance ratio {row.variance_ratio:.2f})"


def _inference(row: Any) -> str:
    if row.n == 0:
        return "No result yet."
    metric = metric_of_row(row)
    estimate = f"Effect {metric.say_difference(row.mean)}"
    if row.n == 1:
        return f"{estimate}; one seed, so there is no interval and no test."
    bounds = f"[{metric.say_interval(row.low, row.high, f'{100 * row.confidence:g}% t')}]"
    dz = "n/a" if math.isnan(row.dz) else f"{row.dz:.2f}"
    p_improve = f"P(improve) {row.p_improve:.2f} [{row.p_improve_low:.2f}, {row.p_improve_high:.2f}]"
    meaningful = f"{'' if row.is_meaningful else 'not '}meaningful at {MEANINGFUL_P_IMPROVE:g}"
    parts = [
        f"{estimate} {bounds}, dz {dz}",
        f"sign-flip p {format_p(row.p)} raw, {adjusted(row)}, paired t p {format_p(row.p_t)}",
        f"{p_improve}, {meaningful}",
    ]
    if row.detectable > 0:
        parts.append(f"detectable with power 0.8: {metric.say_difference(row.detectable, signed=False)}")
    if row.note:
        parts.append(row.note)
    parts.append(f"verdict: {row.verdict}")
    claims = row.verdict in ("improves", "hurts", "equivalent")
    return "; ".join(parts) + "." + ("" if claims else f" {why_no_claim(row)}".rstrip())


def _provenance(row: Any, table: pd.DataFrame) -> str:
    """Of the cells of the two compared variants; of all cells where an effect takes more than two variants."""
    sides = table["variant"].isin([row.variant, row.reference])
    cells = table[sides] if table.loc[sides, "variant"].nunique() == 2 else table
    cells = cells.drop_duplicates("key")
    finished = cells[cells["status"] == "finished"]
    commits = finished["commit"].astype(str) + finished["dirty"].map({True: " (dirty)", False: " (clean)"}).astype(str)
    hours = cells["seconds"].fillna(0).sum() / 3600
    device = [f"Device {_distinct(finished['device'])}"]
    if "precision" in finished.columns:  # a fact, which not every training notes; so are threads and data
        device.append(f"precision {_distinct(finished['precision'])}")
    if "threads" in finished.columns:
        device.append(_distinct(finished["threads"].map(_threads, na_action="ignore")))
    parts = [", ".join(device), f"versions {_distinct(finished['versions'])}", f"commit {_distinct(commits)}"]
    if "data_fingerprint" in finished.columns:
        parts.append(f"data {_distinct(finished['data_fingerprint'])}")
    ended = f"{len(finished)} of {len(cells)} cells finished"
    return "; ".join([*parts, ended, f"cost {hours:.2f} hours of training."])


def _threads(count: float) -> str:
    return f"{int(count)} thread" + ("s" if count > 1 else "")


def _distinct(column: "pd.Series[str]") -> str:
    """Every value that occurs: where conditions were mixed, the line shows it."""
    said = {"not recorded" if pd.isna(value) or not str(value) else str(value) for value in column}
    return " and ".join(sorted(said)) or "not recorded"
