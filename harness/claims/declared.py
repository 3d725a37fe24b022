"""The claims that a study declares, each with the check that recomputes it."""

from collections.abc import Callable
from dataclasses import dataclass

from harness.claims import Check, Claim, NotRunError, StudyRun
from harness.claims.effects import Better, Biggest, ChangeEffect
from harness.claims.numbers import Bound, Gain, Number
from harness.study.claimed import Claimed
from harness.study.study import Study


def declared_claims(study: Study) -> list[Claim]:
    """In the order of the study's file."""
    return [Claim(it.name, it.source, it.words, _check(study, it)) for it in study.claims]


@dataclass(frozen=True, slots=True)
class DeclaredEvidence:
    """The study run that was found for a study; an exploratory one decides nothing."""

    run: Callable[[], StudyRun]

    def run_of(self, study: str) -> StudyRun:
        run = self.run()
        if run.manifest.exploratory:
            raise NotRunError(f"{run.manifest.id} is exploratory (profile {run.manifest.profile}). {run.makes}")
        return run


def _check(study: Study, claimed: Claimed) -> Check:
    name, of, metric = study.name, claimed.of, claimed.metric or study.trainer.metrics.report
    value = claimed.value or 0.0
    match claimed.says:
        case "biggest":
            rivals = tuple(it.name for it in study.changes if it.name != of)
            return Biggest(name, of, rivals, metric=metric)
        case "better":
            return Better(name, of, claimed.than, metric=metric)
        case "gain":
            return Gain(name, "add-one", of, value, metric=metric)
        case "number":
            return Number(name, of, metric, value)
        case "above" | "below" as side:
            return Bound(name, of, metric, value, side=side)
        case says:
            return ChangeEffect(name, of, says, metric=metric, noticeable=claimed.noticeable)
