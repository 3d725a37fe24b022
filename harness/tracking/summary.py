"""The summary of a study run (effects by variant, files such as a report), kept beside the cells until it is delivered.

<root>/tracking/summaries/<study id>/revisions.json   every set of numbers that was recorded, the oldest first
                                     files/           copies of the latest files
"""

import json
import math
import numbers
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.files.atomic import write_atomically
from harness.store.journal import now
from harness.tracking.run_image import BEST, Artifact, Point, allowed, file_artifact, milliseconds


def record_summary(root: Path, study_id: str, rows: Iterable[Mapping[str, Any]], files: Mapping[str, Path]) -> None:
    """Keeps the summary for delivery. Numbers that are the same as before are no new revision.

    Args:
        rows: one a variant: `variant`, its name, and numbers by name. What is not a finite number is left out.
        files: by the name they are to have (`report/report.html`); copied, and one of the same name is replaced.
    """
    folder = summary_folder(root, study_id)
    (folder / "files").mkdir(parents=True, exist_ok=True)
    numbers_by_variant = {row["variant"]: _finite_numbers(row) for row in rows}
    revisions = _revisions(folder)
    if numbers_by_variant and (not revisions or revisions[-1]["numbers"] != numbers_by_variant):
        revisions.append({"time": now(), "numbers": numbers_by_variant})
        write_atomically(folder / "revisions.json", json.dumps(revisions, indent=1))
    for name, file in files.items():
        kept = folder / "files" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        coming = folder / f"coming.{os.getpid()}"
        shutil.copyfile(file, coming)
        coming.replace(kept)  # the earlier one may be the artifact itself, by a link


def summary_points(root: Path, study_id: str, reported: str) -> dict[str, tuple[Point, ...]]:
    """By variant: `<reported metric>:best/mean` and so on, as logged; the step is the number of the revision."""
    points: dict[str, tuple[Point, ...]] = {}
    for step, revision in enumerate(_revisions(summary_folder(root, study_id))):
        time = milliseconds(revision["time"])
        for variant, values in revision["numbers"].items():
            added = (Point(allowed(f"{reported}{BEST}/{name}"), value, time, step) for name, value in values.items())
            points[variant] = (*points.get(variant, ()), *added)
    return points


def summary_artifacts(root: Path, study_id: str) -> tuple[Artifact, ...]:
    folder = summary_folder(root, study_id) / "files"
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(file_artifact(path, path.relative_to(folder).as_posix()) for path in found)


def summary_folder(root: Path, study_id: str) -> Path:
    return root / "tracking" / "summaries" / study_id


def _revisions(folder: Path) -> list[dict[str, Any]]:
    try:
        revisions: list[dict[str, Any]] = json.loads((folder / "revisions.json").read_text())
    except FileNotFoundError:
        return []
    return revisions


def _finite_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    found = {name: it for name, it in row.items() if isinstance(it, numbers.Real) and not isinstance(it, bool)}
    return {name: float(it) for name, it in found.items() if math.isfinite(it)}
