"""The claims that a study declares, held against its results."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.api.looking import looked_at
from harness.api.work import plan_work
from harness.claims import Claim, Finding, StudyRun, check_claims
from harness.claims.declared import DeclaredEvidence, declared_claims
from harness.errors import StudyError
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.study.load import load_study
from harness.study.study import Study


@dataclass(frozen=True)
class StudyClaims:
    """What a study's claims come to.

    Attributes:
        run: id of the study run that they were held against; empty where there is none.
        checked: each claim with what its check found, in the order of the study's file.
    """

    run: str
    checked: list[tuple[Claim, Finding]]


def study_claims(study: str | Path, *, store: str | Path = "mlruns", profile: str | None = None) -> StudyClaims:
    """Every claim that a study's file declares, held against the latest run of what the file says: its baseline, its
    code, one of its profiles that are not exploratory. Effects are looked at, and the look is counted.

    Args:
        profile: only runs of this profile.

    Raises:
        StudyError: the study cannot be read, or declares no claims.
        StoreError: the store cannot be read.
    """
    loaded = load_study(study)
    if not loaded.claims:
        raise StudyError(
            f"study {loaded.name!r} declares no claims. Write, in its file, such as: "
            "claims: [{name: it-helps, says: improves, of: CHANGE}]; without --study, the claims of the report of 2022 "
            "are recomputed."
        )
    if profile:
        loaded.profile(profile)
    cells = Cells(Path(store).absolute())
    manifests = cells.manifests()
    named = f" --profile {profile}" if profile else ""
    makes = f"`harness ablate --study {study}{named}{_designs(loaded)}` makes what this takes."
    found, others = _runs(cells, manifests, loaded, profile)
    run = StudyRun(cells, found, makes, read=looked_at) if found else None
    evidence = DeclaredEvidence(run, f"{makes} {others}".rstrip())
    return StudyClaims(found.id if found else "", check_claims(declared_claims(loaded), evidence))


def _runs(
    cells: Cells, manifests: Mapping[str, Manifest], study: Study, profile: str | None
) -> tuple[Manifest | None, str]:
    """The latest study run that can speak about the claims, and a sentence about those that cannot."""
    from harness.store.load import has_results

    declared = {
        plan_work(study, store=cells.root, profile=name, seeds=(0,), designs=("add-one",)).plan.id
        for name, it in study.profiles.items()
        if not it.exploratory and profile in (None, name)
    }
    fitting = [it for it in manifests.values() if it.id in declared and has_results(cells, it)]
    others = [it.id for it in manifests.values() if it.study == study.name and not it.confirms and not it.belongs_to]
    why_not = f"Exploratory, or of another baseline than the file's: {', '.join(others)}." if others else ""
    return (fitting[-1] if fitting else None), why_not


def _designs(study: Study) -> str:
    """What has to be asked for besides the study's own designs, so that each claim's variants are trained."""
    combined = {it.name for it in study.combinations}
    single = {it.name for it in study.changes}
    said = {name for it in study.claims for name in (it.of, it.than)}
    wanted = [design for design, names in (("add-one", single), ("combinations", combined)) if names & said]
    lacking = [it for it in wanted if it not in study.designs]
    return f" --design {','.join([*study.designs, *lacking])}" if lacking else ""
