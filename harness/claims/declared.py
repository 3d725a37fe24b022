"""The claims that a study declares, each with the check that recomputes it."""

from dataclasses import dataclass

from harness.claims import Check, Claim, NotRunError, StudyRun
from harness.claims.effects import Biggest, ChangeEffect, Verdict
from harness.claims.numbers import Bound, Gain, Number
from harness.study.claimed import Claimed
from harness.study.study import Study


def declared_claims(study: Study) -> list[Claim]:
    """In the order of the study's file."""
    return [Claim(it.name, it.source, it.words, _check(study, it)) for it in study.claims]


@dataclass(frozen=True, slots=True)
class DeclaredEvidence:
    """The study run that was found for a study."""

    run: StudyRun | None
    why_not: str = ""

    def run_of(self, study: str) -> StudyRun:
        if self.run is None:
            raise NotRunError(self.why_not)
        return self.run


def _check(study: Study, claimed: Claimed) -> Check:
    name, of, metric = study.name, claimed.of, claimed.metric or study.trainer.metrics.report
    value = claimed.value or 0.0
    match claimed.says:
        case "improves" | "hurts" as verdict:
            return Verdict(name, of, verdict, metric=metric)
        case "better":
            return Verdict(name, of, "improves", claimed.than, metric=metric)
        case "biggest":
            return Biggest(name, of, metric=metric)
        case "gain":
            return Gain(name, "", of, value, metric=metric)
        case "number":
            return Number(name, of, metric, value)
        case "above" | "below" as side:
            return Bound(name, of, metric, value, side=side)
        case says:
            return ChangeEffect(name, of, says, metric=metric, noticeable=claimed.noticeable)
