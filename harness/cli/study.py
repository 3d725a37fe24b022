"""`harness study`: a range of commits, or the log of a loop, as a study."""

import click

from harness.cli.as_json import print_json
from harness.cli.options import json_option, store_option
from harness.cli.progress import duration
from harness.cli.sentences import say, tell


@click.command()
@click.argument("commits", metavar="[BASE..TIP]", default="")
@click.option("--study", required=True, help="A study of your own training: metrics, settings and profiles are its.")
@click.option("--output", default="commits.yaml", show_default=True, help="The study's file; nothing is overwritten.")
@click.option(
    "--by",
    default="commit",
    show_default=True,
    help="What one change is: each commit, or all of one `path` (first folder), `trailer:KEY` or `message:REGEX`.",
)
@click.option("--first-parent", is_flag=True, help="Steps of the main line; a merge is one, with all that it brought.")
@click.option("--from", "log", help="A loop's log in place of a range: results.tsv (commit, metric, status, ...).")
@click.option("--budget", help="Cells (800) or time (3h): picks the design and seeds that find the smallest effects.")
@store_option
@json_option
def study(
    commits: str,
    study: str,
    output: str,
    by: str,
    first_parent: bool,
    log: str | None,
    budget: str | None,
    store: str,
    as_json: bool,
) -> None:
    """Write a study of a range of commits, or of a loop's log: which of them helped?

    Its baseline is the code of BASE, its changes are the commits after it up to TIP (HEAD where none stands). What each
    needs is found by trying; merges, reverts, edits of what is fixed and of what training does not read are left out,
    and listed. Your repository is only read.

    Of a log, every proposal is a change, kept or not; the log's first row is where the loop began. `harness lineage
    --log` sets what the loop claimed beside what was measured.
    """
    from harness.api.studying import study_range
    from harness.api.work import plan_work, unfinished
    from harness.study.history import in_words
    from harness.study.load import load_study

    if not commits and not log:
        raise click.UsageError("expected BASE..TIP, such as v1.0..HEAD, or --from results.tsv.")
    found = study_range(
        commits, study, output=output, by=by, first_parent=first_parent, log=log, budget=budget, store=store
    )
    profiles = load_study(found.path).profiles
    profile = "standard" if "standard" in profiles else next(iter(profiles))
    work = plan_work(found.path, profile=profile, store=store, device="cpu")
    todo, expected = unfinished(work)
    history = found.history
    if as_json:
        told = {
            "study": str(found.path),
            "base": found.base,
            "tip": found.tip,
            "changes": [
                {"name": it.name, "commits": it.commits, "needs": it.needs}
                | ({"kept": it.name in history.kept, "claimed": found.claims.get(it.name)} if log else {})
                for it in history.changes
            ],
            "left_out": [{"commit": it.commit, "subject": it.subject, "reason": why} for it, why in history.left_out],
            "notes": [*history.notes, *work.plan.notes],
            "budget": [
                {
                    "design": it.design,
                    "seeds": it.seeds,
                    "cells": it.num_cells,
                    "detectable_sd": it.detectable if it.seeds else None,
                }
                for it in found.budget
            ],
            "cells": len(todo),
            "expected_seconds": expected.seconds if expected.measured else None,
        }
        print_json(told)
        return
    kept = f", {len(history.kept)} of them kept" if log else ""
    tell(f"{found.path}: {len(history.changes)} changes of {found.asked}{kept}.")
    for change in history.changes:
        needs = f" (needs {', '.join(change.needs)})" if change.needs else ""
        tell(f"  {change.commits[0][:10]} {change.name}{needs}")
    for line in ["Left out:", *(f"  {it}" for it in in_words(history.left_out))] if history.left_out else ():
        tell(line)
    for note in (*history.notes, *work.plan.notes):
        tell(note)
    for option in found.budget:
        tell(f"{'Chosen' if option is found.budget[0] else 'Not chosen'}: {option}.")
    took = f"about {duration(expected.seconds)}" if expected.measured else "`harness try` measures what one takes"
    tell(f"{len(todo)} cells to train ({profile}); {took}.")
    say(f"\nNext:\n    harness plan --study {found.path}\n    harness ablate --study {found.path}")
