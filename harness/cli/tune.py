"""`harness tune`: the variants compared at their best, beside what they do with their own settings."""

from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError
from rich.console import Console

from harness.api.training import Placebos
from harness.api.tuning import TRIALS, Tuned, plan_tuning, train_tuning
from harness.api.work import Work, forget_failed, save_manifest, unfinished
from harness.cli.ablate import show_table
from harness.cli.as_json import print_json
from harness.cli.grid import Column, print_grid
from harness.cli.notify import notifying
from harness.cli.options import json_option, plan_options
from harness.cli.screen import Screen
from harness.cli.training import announce, explain_failures, train_plan
from harness.problems import problems_of
from harness.study.nuisance import Nuisance
from harness.study.yaml_file import parse_value

if TYPE_CHECKING:
    import pandas as pd


def _parse_nuisance(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Nuisance]:
    """`optimizer.learning_rate=1e-4:1e-1:log`, or `model.activation=relu|gelu`."""
    found = {}
    for text in values:
        path, _, said = text.partition("=")
        low, _, rest = said.partition(":")
        high, _, scale = rest.partition(":")
        if "|" in said:
            tree: dict[str, Any] = {"choices": [parse_value(it) for it in said.split("|")]}
        elif path.strip() and high and scale in ("", "log"):
            tree = {"low": parse_value(low), "high": parse_value(high), "log": scale == "log"}
        else:
            raise click.BadParameter(f"{text!r}: expected PATH=LOW:HIGH, PATH=LOW:HIGH:log or PATH=ONE|OTHER.")
        try:
            found[path.strip()] = Nuisance.model_validate(tree)
        except ValidationError as error:
            raise click.BadParameter(f"{text!r}: {'; '.join(problems_of(error))}.") from None
    return found


@click.command()
@plan_options
@click.option("--trials", type=click.IntRange(2), default=TRIALS, show_default=True, help="Of each variant and seed.")
@click.option(
    "--nuisance",
    multiple=True,
    metavar="PATH=RANGE",
    callback=_parse_nuisance,
    help="A setting to tune, such as optimizer.learning_rate=1e-4:1e-1:log; the study's `nuisance:` by default.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop.")
@click.option("--retry-failed", is_flag=True, help="Train cells again that failed or diverged.")
@json_option
@notifying
@click.pass_context
def tune(
    ctx: click.Context,
    /,
    trials: int,
    nuisance: dict[str, Nuisance],
    dry_run: bool,
    retry_failed: bool,
    as_json: bool,
    **request: Any,
) -> None:
    """Compare the variants, each at its own best nuisance settings, such as the learning rate.

    Every variant, the baseline too, gets the same number of trials, at the same values. Each seed is a tuning of its
    own: it draws its own values, and the trial with the best selected metric stands for the variant. Trials that
    diverge are not chosen. The variants with their own settings are trained as well, and stand beside.
    """
    console = Screen(stderr=as_json)
    untuned, tuning = plan_tuning(trials=trials, nuisance=nuisance, **request)
    num_cells = len(tuning.trials.cells)
    console.print(
        f"Tuned: {tuning.what}; {trials} trials x {len(untuned.plan.variants)} variants x {len(untuned.plan.seeds)} "
        f"seeds = {num_cells} cells, beside those with the variants' own settings.",
        style="bold",
    )
    failed = 0

    def train(part: Work) -> Placebos:
        nonlocal failed
        if retry_failed:
            forget_failed(part)
        todo, expected = unfinished(part)
        if part.plan.comparisons or todo:
            expected = announce(console, part, todo, expected)
        found = train_plan(console, part, todo, lambda: save_manifest(part), expected)
        if part.plan is untuned.plan:
            failed = explain_failures(console, part)
        return found

    if dry_run:
        from dataclasses import replace

        for part in (untuned, replace(untuned, plan=tuning.trials)):
            announce(console, part, *unfinished(part), probes=False)
        return
    tuned = train_tuning(untuned, tuning, train)
    if as_json:
        print_json(_as_json(tuned))
    else:
        _print(console, tuned)
    if failed:
        ctx.exit(1)


def _print(console: Console, tuned: Tuned) -> None:
    work = tuned.work
    manifest = work.cells.manifest(work.plan.id) or work.plan.manifest()
    show_table(console, work.cells, manifest, asked={it.name for it in work.plan.variants}, as_json=False)
    console.print()
    _print_beside(console, tuned)
    console.print(
        f"Each with its 95% t interval, paired by seed. Untuned: every variant with its own {tuned.tuning.what}; "
        f"tuned: at the best of {tuned.tuning.num_trials} trials. At the right, what one trial and all of them reach, "
        "the mean over seeds; --json has every budget between.",
    )
    if sentence := overtaking(tuned):
        console.print(sentence)


def _print_beside(console: Console, tuned: Tuned) -> None:
    from harness.report.tables import rows_of

    metric = tuned.work.plan.study.trainer.metrics.reporting
    reached = {(row.trials, row.variant): float(row.mean) for row in rows_of(tuned.budgets)}
    shown = (1, tuned.tuning.num_trials)
    columns = [
        Column("change", is_number=False),
        *(Column(heading, may_break=True) for heading in ("untuned", "tuned")),
        *(Column(f"best of {b}", is_optional=True) for b in shown),
    ]
    effects = {it: _by_variant(frame) for it, frame in (("untuned", tuned.untuned_effects), ("tuned", tuned.effects))}
    rows = []
    for variant in tuned.work.plan.variants:
        said = []
        for which in ("untuned", "tuned"):
            row = effects[which].get(variant.name)
            said.append(metric.format_estimate(row["mean"], row["low"], row["high"]) if row else "–")
        rows.append([variant.name, *said, *(metric.format(reached[b, variant.name]) for b in shown)])
    print_grid(console, columns, rows, title=f"tuned beside untuned: {metric.difference_axis}")


def _by_variant(effects: "pd.DataFrame") -> dict[str, dict[str, Any]]:
    """The first effect of each variant: of single changes, where they are compared."""
    found: dict[str, dict[str, Any]] = {}
    for row in effects.to_dict("records"):
        found.setdefault(str(row["variant"]), {str(name): it for name, it in row.items()})
    return found


def overtaking(tuned: Tuned) -> str:
    """Which changes are ahead of the baseline with some budgets and behind with others, in a sentence."""
    metric = tuned.work.plan.study.trainer.metrics.reporting
    budgets = tuned.budgets.pivot(index="trials", columns="variant", values="mean")
    baseline = tuned.work.plan.variants[0].name
    said = []
    for variant in tuned.work.plan.variants[1:]:
        ahead = metric.sign * (budgets[variant.name] - budgets[baseline]) > 0
        if ahead.iloc[0] != ahead.iloc[-1]:
            turn = next(b for b in reversed(budgets.index) if ahead[b] != ahead.iloc[-1]) + 1
            said.append(f"{variant.name} is {'ahead' if ahead.iloc[-1] else 'behind'} from {turn} trials on")
    return f"Against the baseline with the same budget: {'; '.join(said)}." if said else ""


def _as_json(tuned: Tuned) -> dict[str, Any]:
    from harness.report.tables import records

    return {
        "nuisance": {path: it.model_dump(exclude_defaults=True) for path, it in tuned.tuning.nuisance.items()},
        "trials": tuned.tuning.num_trials,
        "runs": {"tuned": tuned.work.plan.id, "untuned": tuned.untuned.plan.id, "trials": tuned.tuning.trials.id},
        "tuned": records(tuned.effects),
        "untuned": records(tuned.untuned_effects),
        "chosen": records(tuned.chosen),
        "expected_best": records(tuned.budgets),
    }
