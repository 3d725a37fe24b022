"""Claims, each recomputed: confirmed, corrected, not reproduced or not run. Those of the report of 2022, and those that
a study declares.

What a claim is, what a check of it finds, and where a check gets measured numbers from. The checks themselves:

    numbers      printed numbers against measured ones
    effects      verbal claims about changes, by the effects that were measured
    declared     the claims of a study
    report/      every claim of the report, the checks that only it needs, and the runs that can speak about it
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

from harness.plan.manifest import Manifest, RunComparison
from harness.store.cells import Cells

if TYPE_CHECKING:
    import pandas as pd

# confirmed: recomputed and equal; or measured, and it holds. corrected: recomputed, and our value is the right one.
# not reproduced: measured with enough seeds, and it does not hold. not run: what it takes is not there or not enough.
Status = Literal["confirmed", "corrected", "not reproduced", "not run"]
STATUSES: tuple[Status, ...] = get_args(Status)
Value: TypeAlias = float | int | str | tuple[int, ...] | None


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
    """One study run that claims are held against.

    Attributes:
        makes: a sentence with the command that makes what is missing.
        caveat: what sets it apart from the conditions of the claims, empty if nothing does.
        read: reads its cells.
    """

    cells: Cells
    manifest: Manifest
    makes: str
    caveat: str = ""
    read: "Callable[[Cells, Manifest], pd.DataFrame] | None" = None

    @cached_property
    def table(self) -> "pd.DataFrame":
        """A row per cell, as `harness.store.load.load_results` gives it."""
        from harness.store.load import results_table

        return (self.read or results_table)(self.cells, self.manifest)

    def curves(self, *variants: str) -> "pd.DataFrame":
        """A row per validation of these variants, as `harness.store.load.load_curves` gives it."""
        from harness.store.load import curves_table

        return curves_table(self.cells, self.manifest, variants)

    def require(self, *variants: str) -> None:
        """Raises NotRunError where a variant was not planned in this study run."""
        known = {it.name for it in self.manifest.variants}
        if any(name not in known for name in variants):
            raise NotRunError(self.makes)

    def comparisons(self, design: str, labels: Iterable[str]) -> dict[str, RunComparison]:
        """The comparisons of one design by label, those asked for among them.

        Raises:
            NotRunError: one of the labels is not in this study run.
        """
        found = {it.label: it for it in self.manifest.comparisons if it.design == design}
        if any(label not in found for label in labels):
            raise NotRunError(self.makes)
        return found

    def alone(self, change: str) -> RunComparison:
        """What one change does by itself: against the baseline, or against the change that it needs.

        Raises:
            NotRunError: this study run does not compare it.
        """
        single = (it for it in self.manifest.comparisons if it.design == "add-one" or it.design.startswith("on-top:"))
        found = next((it for it in single if it.label == change), None)
        if found is None:
            raise NotRunError(self.makes)
        return found

    def variant(self, name: str) -> str:
        """The variant that shows the baseline, a combination, or a change with what it needs.

        Raises:
            NotRunError: it was not planned in this study run.
        """
        known = {it.name for it in self.manifest.variants}
        return name if name in known else self.alone(name).variant


class Evidence(Protocol):
    """Where checks get the study runs that can speak about their claims."""

    def run_of(self, study: str) -> StudyRun:
        """Raises NotRunError where there is none."""
        ...


def check_claims(claims: Iterable[Claim], evidence: Evidence) -> list[tuple[Claim, Finding]]:
    """Every claim with what its check found, in order."""
    return [(claim, _found(claim.check, evidence)) for claim in claims]


def _found(check: Check, evidence: Evidence) -> Finding:
    try:
        return check(evidence)
    except NotRunError as error:
        return Finding(status="not run", how=str(error))
