"""The claims of a report, each recomputed: confirmed, corrected, not reproduced or not run.

What a claim is, what a check of it finds, and where a check gets measured numbers from. The checks themselves:

    arithmetic  exact: Task 1, and printed numbers held against each other; at once, without any results
    numbers     printed numbers against measured ones
    effects     verbal claims about changes, by the effects that were measured
    report      the list: every claim of the report with its check
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from pydantic import ValidationError

from harness.plan.manifest import Manifest, RunComparison
from harness.store.cells import Cells
from harness.study.load import load_study
from harness.trainers.images.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

# confirmed: recomputed and equal; or measured, and it holds. corrected: recomputed, and our value is the right one.
# not reproduced: measured with enough seeds, and it does not hold. not run: what it takes is not there or not enough.
Status = Literal["confirmed", "corrected", "not reproduced", "not run"]
STATUSES: tuple[Status, ...] = get_args(Status)
Value: TypeAlias = float | int | str | tuple[int, ...] | None
# What a study has to compare for all claims about it, where that is more than its own designs.
DESIGNS = {"task3": " --design add-one,combinations,path:report"}
STAND_INS = {"task2": "task3"}  # its baseline is the same network by the same protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found. Accuracies are fractions, losses are nats.

    Attributes:
        ours: what was recomputed or measured, None where there is nothing.
        low, high: 95% interval of `ours` over seeds, None where there is none. n: how many seeds, None for an exact
            value.
        how: the computation in a sentence, or why there is none.
    """

    status: Status
    ours: Value = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    how: str = ""


class Check(Protocol):
    """Recomputes one claim.

    Attributes:
        printed: what the report says.

    Raises:
        NotRunError: when called, where the results that it takes are not there.
    """

    @property
    def printed(self) -> Value: ...

    def __call__(self, evidence: "Evidence") -> Finding: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence or number of the report.

    Attributes:
        name: unique, kebab-case.
        source: the section, table or figure.
        text: what it says, in its words as far as they make sense alone.
    """

    name: str
    source: str
    text: str
    check: Check


class NotRunError(Exception):
    """A check lacks what it needs; the message says what, and which command makes it."""


@dataclass(frozen=True)
class StudyRun:
    """One study run by the report's protocol.

    Attributes:
        caveat: what sets it apart from the report's own conditions, empty if nothing does.
    """

    cells: Cells
    manifest: Manifest
    caveat: str

    @cached_property
    def table(self) -> "pd.DataFrame":
        """A row per cell, as `harness.store.load.load_results` gives it."""
        from harness.store.load import results_table

        return results_table(self.cells, self.manifest)

    def curves(self, *variants: str) -> "pd.DataFrame":
        """A row per validation of these variants, as `harness.store.load.load_curves` gives it."""
        from harness.store.load import curves_table

        return curves_table(self.cells, self.manifest, variants)

    def require(self, *variants: str) -> None:
        """Raises NotRunError where a variant was not planned in this study run."""
        known = {it.name for it in self.manifest.variants}
        absent = [name for name in variants if name not in known]
        if absent:
            raise NotRunError(_makes(self.manifest.study, self.manifest.baseline["data"]))

    def comparisons(self, design: str, labels: Iterable[str]) -> dict[str, RunComparison]:
        """The comparisons of one design by label, those asked for among them.

        Raises:
            NotRunError: one of the labels is not in this study run.
        """
        found = {it.label: it for it in self.manifest.comparisons if it.design == design}
        if any(label not in found for label in labels):
            raise NotRunError(_makes(self.manifest.study, self.manifest.baseline["data"]))
        return found


class Evidence:
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
                return StudyRun(self._cells, fitting[-1], _caveat(fitting[-1]))
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


def check_claims(claims: Iterable[Claim], evidence: Evidence) -> list[tuple[Claim, Finding]]:
    """Every claim with what its check found, in order."""
    return [(claim, _found(claim.check, evidence)) for claim in claims]


def _found(check: Check, evidence: Evidence) -> Finding:
    try:
        return check(evidence)
    except NotRunError as error:
        return Finding(status="not run", how=str(error))


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
