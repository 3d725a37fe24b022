"""Files for the MLflow run of a study (a report, a picture): kept beside the cells, delivered at once if possible."""

from collections.abc import Mapping
from pathlib import Path

import click

from harness.errors import TrackingError
from harness.plan.manifest import Manifest
from harness.store.cells import Cells


def attach(cells: Cells, manifest: Manifest, files: Mapping[str, Path], *, what: str) -> None:
    """Makes the files artifacts of the study's run, and says so, or why they wait; nothing is lost then.

    Cells are not delivered on the way: a folder that MLflow has never seen can hold thousands of them.

    Args:
        files: by the name of the artifact; copied.
        what: "The report", to begin a sentence with.
    """
    from harness.tracking import Tracking, init, resolve_uri

    uri = resolve_uri(None, cells.root)
    tracking = Tracking(uri, cells.root)
    try:
        tracking.log_summary(manifest, [], files)
    except OSError as error:
        click.secho(f"{what} is not kept for MLflow: {error.filename}: {error.strerror}.", fg="yellow", err=True)
        return
    if tracking.run_link(manifest) is None:
        _say_waiting(what, "it has no run of this study yet.")
        return
    try:
        init(uri, cells.root)
        tracking.project(manifest, cells, keys=())
    except TrackingError as error:
        _say_waiting(what, str(error))


def _say_waiting(what: str, why: str) -> None:
    click.secho(f"{what} waits for MLflow: {why} `harness sync` delivers it.", fg="yellow", err=True)
