"""The study runs that can speak about the report of 2022: those by its protocol, on its images or on others."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from harness.claims import NotRunError, StudyRun
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.study.load import load_study
from harness.trainers.images.settings import Settings

# What a study has to compare for all claims about it, where that is more than its own designs.
DESIGNS = {"task3": " --design add-one,combinations,path:report"}
STAND_INS = {"task2": "task3"}  # its baseline is the same network by the same protocol


class ReportEvidence:
    """The study runs of one folder of cells that can speak about the report; looked up once each."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._runs: dict[str, StudyRun | NotRunError] = {}

    def run_of(self, study: str) -> StudyRun:
        """The latest run of a built-in study by its own protocol: not exploratory, nothing changed but the images.

        A run on the report's own images goes before later ones on others. A confirmation is no run of the study.

        Raises:
            NotRunError: there is none.
        """
        if study not in self._runs:
            self._runs[study] = self._find(study)
        found = self._runs[study]
        if isinstance(found, NotRunError):
            raise found
        return found

    def _find(self, study: str) -> StudyRun | NotRunError:
        protocol = _protocol(image_settings(study))
        others = []
        for name in (study, STAND_INS.get(study)):
            runs = [it for it in self._manifests.values() if it.study == name and not it.confirms and not it.belongs_to]
            fitting = [it for it in runs if not it.exploratory and _protocol_of(it) == protocol]
            fitting.sort(key=lambda it: not _caveat(it))  # stable: the latest of the better ones comes last
            if fitting:
                run = fitting[-1]
                return StudyRun(self._cells, run, _makes(run.study, run.baseline["data"]), _caveat(run))
            others += [it.id for it in runs]
        not_by_it = f" Not by the report's protocol: {', '.join(others)}." if others else ""
        return NotRunError(_makes(study) + not_by_it)

    @cached_property
    def _manifests(self) -> Mapping[str, Manifest]:
        return self._cells.manifests()


def image_settings(study: str) -> Settings:
    """Of the baseline of a built-in study; the report is about images."""
    baseline = load_study(study).baseline
    assert isinstance(baseline, Settings)
    return baseline


def _makes(study: str, data: Mapping[str, Any] | None = None) -> str:
    """One command for all claims of a study, so that it is said once; cells that have ended are not trained again."""
    kind, path = (data["kind"], data.get("path")) if data else ("cifar10", None)
    images = "" if kind == "cifar10" else f" --data {kind}:{path}" if path else f" --data {kind}"
    return f"`harness ablate --study {study}{DESIGNS.get(study, '')}{images}` makes what this takes."


def _protocol_of(manifest: Manifest) -> Mapping[str, Any]:
    try:
        return _protocol(Settings.model_validate(manifest.baseline))
    except ValidationError:  # of a version with other settings
        return {}


def _protocol(baseline: Settings) -> Mapping[str, Any]:
    """What has to be as in the report: all settings but which images, and how the machine computes."""
    tree = baseline.identity()
    del tree["data"]
    for name in ("precision", "threads"):
        del tree["training"][name]
    return tree


def _caveat(manifest: Manifest) -> str:
    data = manifest.baseline["data"]["kind"]
    return "" if data == "cifar10" else f"Measured on {data} images, not on the report's CIFAR-10."
