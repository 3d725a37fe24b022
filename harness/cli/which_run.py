"""Which study run a command shows, where there are several of one study."""

from harness.cli.sentences import tell
from harness.plan.manifest import Manifest
from harness.store.cells import Cells


def say_which_run(cells: Cells, manifest: Manifest, asked: str) -> None:
    """Says on standard error which study run was taken for a name, and which others there are.

    Args:
        asked: what the user wrote; nothing is said of a study run that was asked for by its id.
    """
    from harness.store.load import has_results, is_study_file, other_runs

    if is_study_file(asked):
        _say_another_baseline(manifest, asked)
    others = other_runs(cells, manifest)
    if asked == manifest.id or manifest.confirms or not others:
        return
    of = " with the file's baseline" if is_study_file(asked) else ""
    found = has_results(cells, manifest)
    which = f"the latest{of} that has results" if found else "the latest; none of them has results"
    listed = ", ".join(others)
    tell(f"note: shown is {manifest.id}, {which}. There are also: {listed}; --study ID shows another.", err=True)


def _say_another_baseline(manifest: Manifest, asked: str) -> None:
    """Numbers of another baseline than the file has now are none of the file's."""
    from harness.store.load import edited
    from harness.study.load import load_study

    if found := edited(manifest.declared, load_study(asked).baseline.tree()):
        tell(
            f"note: {asked} has another baseline now than {manifest.id}, which is shown: {'; '.join(found)}. "
            f"`harness ablate --study {asked}` trains the one of now.",
            err=True,
        )
