"""The table of effects in the terminal, with the sentence below it."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from harness.cli.grid import Column, print_grid
from harness.cli.screened import print_screening
from harness.metrics import ABSENT, Metric
from harness.plan.manifest import EARLIER

if TYPE_CHECKING:
    import pandas as pd

    from harness.report.tables import Family, Tables

MOST_ROWS = 60  # of one design; a factorial has hundreds
MOST_OF_WORDS = 30  # characters on a line, where something would have to be left out
SHORT_VERDICTS = {
    "improves where it trains": "where it trains",
    "cannot reach significance": "too few seeds",
    "no inference (one seed)": "one seed",
}
STYLES = {"improves": "green", "hurts": "red", "reference": "dim"}


def print_effects(
    console: Console,
    results: "pd.DataFrame",
    *,
    metric: str | None = None,
    asked: Collection[str] | None = None,
    confirmed: Collection[str] = (),
) -> None:
    """Prints a table for each design of these results, then the biggest single improvement, or why there is none.

    Args:
        results: as `load_results` gives them, with the manifest in `.attrs`.
        metric: by default the one that the study reports.
        asked: variants whose rows are shown; all by default. The correction is over whatever the study run holds of a
            design, whoever asked for it when: else asking for the best alone would make it look better.
        confirmed: variants that fresh seeds have decided on.

    Raises:
        ResultsError: the metric is unknown, or no finished cell has it.
    """
    import pandas as pd

    from harness.report.summary import exploratory_reasons
    from harness.report.tables import Tables

    tables = Tables(results, load_curves=lambda: pd.DataFrame(), metric=metric, confirmed=confirmed)
    screened = [family for family in tables.families.values() if family.kind == "screening"]
    for family in tables.families.values():
        if family not in screened:
            _print_family(console, tables, family, asked)
    for family in screened:
        print_screening(console, tables, family)
    if not tables.families:
        _print_reference(console, tables)
    if len(screened) < len(tables.families) or not screened:  # the best of its mixtures is no answer to what it asks
        console.print(Text(tables.headline.sentence, style="bold"))
    for reason in exploratory_reasons(tables):
        console.print(Text(reason, style="yellow"))


def _print_reference(console: Console, tables: "Tables") -> None:
    """What the reference reaches on each split, where there is nothing to compare it with: a column a quantity."""
    from harness.stats.sentences import CHECKPOINT_RULE

    finished = tables.results[tables.results["status"] == "finished"]
    rule = tables.manifest.checkpoint_rule or CHECKPOINT_RULE
    seeds = ", ".join(str(seed) for seed in sorted(finished["seed"]))
    metrics = [metric for metric in tables.metrics if finished[metric.name].notna().any()]
    headings = list(dict.fromkeys(metric.base_axis for metric in metrics))
    by_place = {(metric.split_words, metric.base_axis): metric for metric in metrics}
    console.print()
    console.print(Text(f"{rule[:1].upper()}{rule[1:]}; mean and sd over seeds {seeds}:", style="bold"))
    console.print(Text("".join([f"{'':12}", *(f"{heading:>18}" for heading in headings)]), style="bold"))
    for split in dict.fromkeys(metric.split_words for metric in metrics):
        shown = (by_place.get((split, heading)) for heading in headings)
        cells = (it.format_spread(finished[it.name].mean(), finished[it.name].std()) if it else ABSENT for it in shown)
        console.print(Text("".join([f"{split:12}", *(f"{cell:>18}" for cell in cells)])))


def _print_family(console: Console, tables: "Tables", family: "Family", asked: Collection[str] | None) -> None:
    from harness.report.rows import effect_rows

    metric, every = tables.subject, effect_rows(family, tables.variants)
    places = {label: variant for label, (variant, _) in family.sides.items()}
    asked = None if family.kind == EARLIER else asked  # nobody can ask for what is there no more
    rows = [it for it in every if it.is_reference or asked is None or places[it.change] in asked]
    if len(rows) < 2:
        return
    shown, left_out = rows[: MOST_ROWS + 1], len(rows) - MOST_ROWS - 1
    against = family.reference or ("the step before" if family.kind == "path" else "the variant without the change")
    minuend = family.full or "variant"
    console.print()
    print_grid(
        console,
        _columns(metric, family),
        [
            (it.change, it.n, it.value, it.effect, it.p, it.p_adjusted, it.p_improve, it.cost, it.verdict)
            for it in shown
        ],
        title=f"{family.design}: {metric.words}, {minuend} minus {against}",
        styles=[STYLES.get(it.verdict, "") for it in shown],
    )
    if left_out > 0:
        console.print(f"... and {left_out} more; `harness export --table effects` has all.", style="dim")
    first = family.effects.iloc[0]
    look = f"; {first.look}" if first.look else ""
    console.print(
        "Effect with its 95% t interval, paired by seed; p by sign-flip, adjusted by "
        f"{first.correction} over {_corrected_over(first)}{look}.",
        style="dim",
    )
    if len(rows) < len(every):
        console.print(
            f"Shown: {len(rows) - 1} of the {len(every) - 1} that this study run holds; corrected over all of them.",
            style="dim",
        )
    for row in shown:
        if row.remark:
            console.print(Text(f"{row.change}: {row.remark}.", style="yellow"))


def _corrected_over(first: Any) -> str:
    from harness.stats.headline import corrected_over

    return corrected_over(first)


_HEADINGS = {"leave-one-out": "change left out", "path": "step", "pairs": "pair", "factorial": "combination"}


def _columns(metric: Metric, family: "Family") -> Sequence[Column]:
    def unit(text: str) -> str:
        return f" [{text}]" if text else ""

    value = f"{metric.words}{' without it' * (family.full is not None)}{unit(metric.value_unit)}"
    return (
        Column(_HEADINGS.get(family.kind, "change"), is_number=False, ease=MOST_OF_WORDS),
        Column("n"),
        Column(value, is_optional=True, leaves_late=True),
        Column(f"effect{unit(metric.difference_unit)}"),
        Column("p", is_optional=True),
        Column("p (adjusted)", is_optional=True, leaves_late=True),
        Column("P(improve)", is_optional=True),
        Column("cost of a cell", is_optional=True),
        Column("verdict", is_number=False, shorter=SHORT_VERDICTS, ease=MOST_OF_WORDS),
    )
