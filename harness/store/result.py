"""What one ended cell says, and the one definition of the results table's fixed columns.

A result is written once, when its cell has ended (also when it ended badly: a diverged cell is an outcome). It is an
envelope, the same for every trainer, and two mappings: `metrics`, which the study declares, and `facts`, which the
trainer notes. The table that everything downstream reads has a row per cell and a column for each of all three; it is
built in `load.py`, not here: this module knows neither files nor pandas.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from harness.errors import StoreError

Status = Literal["finished", "diverged", "out-of-memory", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
FORMAT = 2  # of result.json; 1 had a field for each number of the one trainer that there was


@dataclass(frozen=True, slots=True)
class Validation:
    """What was known at one step of training.

    Attributes:
        metrics: as they were logged, by name.
        seconds: training time so far, that of earlier, interrupted attempts included.
        epoch: the same step in epochs, where the trainer counts them; else NaN.
    """

    step: int
    metrics: Mapping[str, float]
    seconds: float = float("nan")
    epoch: float = float("nan")

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "Validation":
        """From a line of a journal, of this format or of the first."""
        metrics = event["metrics"] if "metrics" in event else _named(event)[0]
        return cls(event["step"], metrics, event.get("seconds", float("nan")), event.get("epoch", float("nan")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one ended cell.

    Attributes:
        metrics: as the trainer reported them; empty where the cell did not finish.
        facts: whatever else the trainer noted: plain values.
        num_steps: how far training came; seconds: training time, interrupted attempts included.
    """

    key: str
    seed: int
    status: Status
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    num_steps: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    device: str = ""
    versions: str = ""
    commit: str = ""
    dirty: bool = False
    finished_at: str = ""

    @property
    def is_finished(self) -> bool:
        return self.status == "finished"

    def problems(self) -> Iterator[str]:
        """What no harness would have written: a field of another type, a status that there is not, a number without
        sense."""
        yield from (
            f"{name} is {getattr(self, name)!r}"
            for name, kind in _KINDS.items()
            if not isinstance(getattr(self, name), kind) or (isinstance(getattr(self, name), bool) and kind is not bool)
        )
        if self.status not in STATUSES:
            yield f"status is {self.status!r}, not one of {', '.join(STATUSES)}"
        for name, value in self.metrics.items() if isinstance(self.metrics, Mapping) else ():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                yield f"metric {name} is {value!r}, no finite number"
        for name in ("num_steps", "seconds"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
                yield f"{name} is {value!r}"

    def to_json(self) -> dict[str, Any]:
        plain = {it.name: getattr(self, it.name) for it in fields(self)}
        return {"format": FORMAT, **plain, "metrics": dict(self.metrics), "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Result":
        """Raises TypeError for an unknown or missing field (a damaged file must not read as a result), ValueError for
        values that no harness writes or a checksum that does not fit, StoreError for a format that a newer harness
        wrote."""
        data = dict(data)
        sealed = data.pop("checksum", None)
        written = data.pop("format", 1)
        if written == 1:
            data = _from_first_format(data)
        elif written != FORMAT:
            raise StoreError(
                f"cell {data.get('key', '?')}: its result has format {written}, this harness reads up to {FORMAT}. "
                "Install the version that wrote it; the result is not damaged."
            )
        elif sealed is not None and sealed != checksum(data | {"format": written}):
            raise ValueError("its checksum does not fit its content: it was edited, or is damaged")
        result = cls(**data)
        if problems := "; ".join(result.problems()):
            raise ValueError(problems)
        return result


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a result's file, whatever its spaces and the order of its fields."""
    text = _CANONICAL.encode(content)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(result: Result) -> dict[str, Any]:
    """`to_json` with a field `checksum`, by which an edit is seen."""
    content: dict[str, Any] = json.loads(json.dumps(result.to_json()))  # as a reader has it
    return content | {"checksum": checksum(content)}


_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("key", "status", "reason", "device", "versions", "commit", "finished_at"), str),
    **dict.fromkeys(("metrics", "facts"), Mapping),
    **dict.fromkeys(("seed", "num_steps"), int),
    "seconds": int | float,
    "peak_memory_bytes": int | None,
    "dirty": bool,
}

# What identifies a row, then the envelope. `variant` is the variant's name ("baseline", "batch-norm", "model-1"),
# `changes` its change names joined by "+", empty for the baseline. A planned cell without a result has status
# "missing" and no numbers; one whose result cannot be believed has status "refused", the reason, and no numbers. Behind
# these columns stand the metrics of the study, and the facts of its trainer.
REFUSED = "refused"
IDENTITY_COLUMNS: tuple[str, ...] = ("study", "variant", "changes")
ENVELOPE: tuple[str, ...] = tuple(it.name for it in fields(Result) if it.name not in ("metrics", "facts"))
RESULT_COLUMNS: tuple[str, ...] = IDENTITY_COLUMNS + ENVELOPE

_FIRST_FORMAT_METRIC = re.compile(r"(train|val|test)_(\w+)")


def _named(data: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """What the first format called `val_loss`, as metrics called `val/loss`; and everything else."""
    metrics: dict[str, float] = {}
    rest: dict[str, Any] = {}
    for name, value in data.items():
        found = _FIRST_FORMAT_METRIC.fullmatch(name)
        if found:
            metrics |= {f"{found[1]}/{found[2]}": value} if value is not None else {}
        else:
            rest[name] = value
    return metrics, rest


def _from_first_format(data: dict[str, Any]) -> dict[str, Any]:
    metrics, rest = _named(data)
    envelope = {name: value for name, value in rest.items() if name in ENVELOPE}
    facts = {name: value for name, value in rest.items() if name not in ENVELOPE and value is not None}
    return envelope | {"metrics": metrics, "facts": facts}
