"""The effects of a screening in the terminal: a row per change, each over all variants."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from harness.cli.grid import Column, print_grid

if TYPE_CHECKING:
    from harness.report.tables import Family, Tables

ALPHA = 0.05
STYLES = {"improves": "green", "hurts": "red"}
MOST_NAMED = 10  # of the changes that the next command takes
FRESH_SEEDS = 10


def print_screening(console: Console, tables: "Tables", family: "Family") -> None:
    """Prints each change's effect, the surest first, and the command that trains what stands out on fresh seeds.

    The 2 sd / sqrt(cells) of the design holds where effects add up; the intervals take the variants for the unit, so
    what does not add up makes them wider.
    """
    from harness.report.tables import rows_of
    from harness.report.wording import format_p

    metric = tables.subject
    frame = tables.marginal.sort_values(["p", "change"], na_position="last")
    unit = f" [{metric.difference_unit}]" if metric.difference_unit else ""
    columns = (
        Column("change", is_number=False),
        Column(f"effect{unit}", may_break=True),
        Column("p", is_optional=True),
        Column("p (adjusted)"),
        Column("verdict", is_number=False),
    )
    supported, rows, styles = [], [], []
    for row in rows_of(frame):
        stands = row.p_holm < ALPHA
        supported += [str(row.change)] if stands else []
        verdict = ("improves" if metric.sign * row.mean > 0 else "hurts") if stands else row.note or "not supported"
        effect = metric.format_estimate(row.mean, row.low, row.high)
        rows.append([str(row.change), effect, format_p(row.p), format_p(row.p_holm), verdict])
        styles.append(STYLES.get(verdict, ""))
    console.print()
    console.print(Text(f"{family.design}: {metric.words}, with the change minus without it", style="bold"))
    print_grid(console, columns, rows, styles=styles)
    price = tables.marginal.attrs["price_of_look"]
    looks = f", times {price:.3g} for this look, one of several" if price > 1 else ""
    cells = f"{int(frame['n'].iloc[0])} of {int(frame['n_planned'].iloc[0])} cells"
    console.print(
        f"Effect over all variants with its 95% t interval, by least squares ({cells}, a block for each seed, effects "
        f"add up); adjusted by Holm over {len(frame)} changes{looks}.",
        style="dim",
    )
    if supported:
        first = int(tables.results["seed"].max()) + 1
        seeds = ",".join(str(first + index) for index in range(FRESH_SEEDS))
        study = tables.manifest.asked or tables.manifest.study
        only = ",".join(supported[:MOST_NAMED])
        line = f"harness ablate --study {study} --design add-one --only {only} --seeds {seeds}"
        console.print(
            f"What stands out among {len(frame)} is best seen again, on fresh seeds:\n    {line}", soft_wrap=True
        )
