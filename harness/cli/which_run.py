"""Which study run a command shows, where there are several of one study."""

from harness.cli.sentences import tell
from harness.plan.manifest import Manifest
from harness.store.cells import Cells


def say_which_run(cells: Cells, manifest: Manifest, asked: str) -> None:
    """Says on standard error which study run was taken for a name, and which others there are.

    Args:
        asked: what the user wrote; nothing is said of a study run that was asked for by its id.
    """
    from harness.store.load import has_results, other_runs

    others = other_runs(cells, manifest)
    if asked == manifest.id or manifest.confirms or not others:
        return
    which = "the latest that has results" if has_results(cells, manifest) else "the latest; none of them has results"
    listed = ", ".join(others)
    tell(f"note: shown is {manifest.id}, {which}. There are also: {listed}; --study ID shows another.", err=True)
