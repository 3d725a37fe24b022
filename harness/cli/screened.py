"""The effects of a screening in the terminal: a row per change, each over all variants."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.wide import print_whole

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
    table = Table(box=None, header_style="bold", pad_edge=False)
    unit = f" [{metric.difference_unit}]" if metric.difference_unit else ""
    for heading in ("change", f"effect{unit}", "p", "p (adjusted)", "verdict"):
        table.add_column(heading, justify="left" if heading in ("change", "verdict") else "right")
    supported = []
    for row in rows_of(frame):
        stands = row.p_holm < ALPHA
        supported += [str(row.change)] if stands else []
        verdict = ("improves" if metric.sign * row.mean > 0 else "hurts") if stands else row.note or "not supported"
        effect = metric.format_estimate(row.mean, row.low, row.high)
        style = STYLES.get(verdict, "")
        table.add_row(str(row.change), effect, format_p(row.p), format_p(row.p_holm), verdict, style=style)
    console.print()
    console.print(Text(f"{family.design}: {metric.words}, with the change minus without it", style="bold"))
    print_whole(table)
    cells = f"{int(frame['n'].iloc[0])} of {int(frame['n_planned'].iloc[0])} cells"
    console.print(
        f"Effect over all variants with its 95% t interval, by least squares ({cells}, a block for each seed, effects "
        f"add up); adjusted by Holm over {len(frame)} changes.",
        style="dim",
        soft_wrap=not console.is_terminal,
    )
    if supported:
        first = int(tables.results["seed"].max()) + 1
        seeds = ",".join(str(first + index) for index in range(FRESH_SEEDS))
        study = tables.manifest.asked or tables.manifest.study
        only = ",".join(supported[:MOST_NAMED])
        console.print(
            f"What stands out among {len(frame)} is best seen again, on fresh seeds: harness ablate --study {study} "
            f"--design add-one --only {only} --seeds {seeds}",
            soft_wrap=True,
        )
