"""The claims that a study declares, held against its results."""

import functools
from pathlib import Path

from harness.api.looking import looked_at
from harness.claims import Claim, Finding, NotRunError, StudyRun, check_claims
from harness.claims.declared import DeclaredEvidence, declared_claims
from harness.errors import ResultsError, StudyError
from harness.store.cells import Cells
from harness.study.claimed import OF_CHANGES
from harness.study.load import load_study
from harness.study.study import Study


def study_claims(
    study: str | Path, *, store: str | Path = "mlruns", profile: str | None = None
) -> list[tuple[Claim, Finding]]:
    """Every claim that a study's file declares, in order, with what its check found in the latest run of the study that
    has results. Effects are looked at, and the look is counted.

    Args:
        profile: only runs of this profile.

    Raises:
        StudyError: the study cannot be read, or declares no claims.
        StoreError: the store cannot be read.
    """
    from harness.store.load import find_manifest

    loaded = load_study(study)
    if not loaded.claims:
        raise StudyError(
            f"study {loaded.name!r} declares no claims. Write, in its file, such as: "
            "claims: [{name: it-helps, says: improves, of: CHANGE}]; without --study, the claims of the report of 2022 "
            "are recomputed."
        )
    cells = Cells(Path(store).absolute())
    makes = f"`harness ablate --study {study}{_designs(loaded)}` makes what this takes."

    @functools.cache
    def run() -> StudyRun:
        try:
            return StudyRun(cells, find_manifest(cells, str(study), profile), makes, read=looked_at)
        except ResultsError:
            raise NotRunError(makes) from None

    return check_claims(declared_claims(loaded), DeclaredEvidence(run))


def _designs(study: Study) -> str:
    """What has to be asked for besides the study's own designs, so that each claim's variants are trained."""
    combined = {it.name for it in study.combinations}
    said = {name for it in study.claims for name in (it.of, it.than) if name}
    wanted = ["add-one"] if any(it.says in OF_CHANGES for it in study.claims) else []
    wanted += ["combinations"] if combined & said else []
    lacking = [it for it in wanted if it not in study.designs]
    return f" --design {','.join([*study.designs, *lacking])}" if lacking else ""
