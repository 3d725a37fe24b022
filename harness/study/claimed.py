"""Claims that somebody made about a study: in a paper, a commit's message, a talk. `harness claims` holds each against
what was measured.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.study.changes import Name

Says = Literal[
    "improves", "hurts", "no improvement", "no difference", "biggest", "better", "gain", "number", "above", "below"
]
OF_CHANGES: tuple[Says, ...] = ("improves", "hurts", "no improvement", "no difference", "biggest", "gain")
# What some kinds say besides, and what stands there.
NEEDED: dict[Says, tuple[str, str]] = {
    "no difference": ("noticeable", "the least difference that would count, such as 0.01"),
    "better": ("than", "another variant, such as baseline"),
    "gain": ("value", "the gain that was printed, as the metric is logged"),
    "number": ("value", "the number that was printed, as the metric is logged"),
    "above": ("value", "a bound, as the metric is logged"),
    "below": ("value", "a bound, as the metric is logged"),
}
ALLOWED: dict[Says, tuple[str, ...]] = {"no improvement": ("noticeable",)}
WORDS: dict[Says, str] = {
    "improves": "improves",
    "hurts": "hurts",
    "no improvement": "brings no improvement",
    "no difference": "makes no difference",
    "biggest": "is the biggest improvement",
    "better": "is better than {than}",
    "gain": "gains {value:g}",
    "number": "reaches {value:g}",
    "above": "lies above {value:g}",
    "below": "lies below {value:g}",
}


class Claimed(BaseModel):
    """One claim: `{name: norm-helps, says: improves, of: batch-norm}`.

    Attributes:
        name: kebab-case.
        says: of a change against the baseline: improves, hurts; no improvement, no difference; biggest (it improves
            more than every other change alone); gain (one run of each side differed by `value`, positive where
            better). Of a variant: better
            (`than` another one); number (one run of it gave `value`); above, below (`value`).
        of: baseline, a change or a combination of the study.
        than: the other variant.
        value: as the metric is logged.
        noticeable: the least difference that counts, for no improvement and no difference; as the metric is logged.
        metric: by default the one that the study reports.
        source: where it stands.
        text: in its own words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    name: Name
    says: Says
    of: str
    than: str = ""
    value: float | None = None
    noticeable: Annotated[float, Field(ge=0)] = 0.0
    metric: str = ""
    source: str = ""
    text: str = ""

    @model_validator(mode="after")
    def _says_what_its_kind_needs(self) -> Self:
        given = {"than": bool(self.than), "value": self.value is not None, "noticeable": self.noticeable > 0}
        needed, what = NEEDED.get(self.says, ("", ""))
        if needed and not given[needed]:
            raise ValueError(f"{self.says!r} needs {needed}: {what}")
        beside = [it for it, is_given in given.items() if is_given and it not in (needed, *ALLOWED.get(self.says, ()))]
        if beside:
            raise ValueError(f"{self.says!r} takes no {beside[0]}")
        return self

    @property
    def words(self) -> str:
        """In its own words, and in ours."""
        ours = f"{self.of} {WORDS[self.says].format(than=self.than, value=self.value)}"
        ours += f" in {self.metric}" if self.metric else ""
        return f"{self.text} ({ours})" if self.text else ours
