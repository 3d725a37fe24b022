"""What `harness try` found of a study's training, kept beside the cells: a report says it with its numbers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from harness.errors import StoreError
from harness.files.atomic import write_atomically

Resume = Literal["identical", "differs", "starts again"]


@dataclass(frozen=True)
class Tried:
    """What one short cell says of a study's training.

    Attributes:
        study, profile: what was tried; fingerprints: of its sources and data.
        metrics: of the cell. seconds, peak_memory_bytes: what it took, on this device.
        resume: `identical`, `differs` or `starts again`; resume_detail: by how much, or why.
        repeat_difference: largest difference between two trainings of one seed; 0 where all bits agree.
        ignores_seed: two seeds gave the same bits.
        unread: settings that training never read; unseen: that a script may never have seen.
    """

    study: str
    profile: str
    fingerprints: Mapping[str, str]
    metrics: Mapping[str, float]
    num_steps: int
    seconds: float
    peak_memory_bytes: int
    resume: Resume
    resume_detail: str
    repeat_difference: float
    ignores_seed: bool
    unread: tuple[str, ...]
    unseen: tuple[str, ...]
    notes: tuple[str, ...] = ()
    device: str = ""

    @property
    def is_deterministic(self) -> bool:
        return self.repeat_difference == 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found that would make a study's answer wrong."""
        return not self.ignores_seed and self.resume != "differs"

    def sentences(self) -> list[str]:
        """What was found, a sentence each; the same words on the screen and in the report."""
        said = [f"resume: {self.resume}" + (f" ({self.resume_detail})" if self.resume_detail else "")]
        said.append(
            "the same seed twice: deterministic, to the last bit"
            if self.is_deterministic
            else f"the same seed twice: differs by up to {self.repeat_difference:.3g}, in logged units"
        )
        said.append(
            "your training ignores the seed: two seeds gave the same bits, so seeds would say nothing about chance"
            if self.ignores_seed
            else "two seeds: different numbers"
        )
        if self.unread:
            said.append(f"never read: {', '.join(self.unread)}; a change of these alone will be refused as a placebo")
        if self.unseen:
            said.append(
                f"perhaps never seen: {', '.join(self.unseen)}; in no placeholder, and $HARNESS_SETTINGS was not opened"
            )
        if not self.unread and not self.unseen:
            said.append("settings: each one is read")
        return [*said, *self.notes]


def write_tried(root: Path, found: Tried) -> None:
    """Keeps what was found, in place of what an earlier try of this very code and data found.

    Raises:
        StoreError: it cannot be written.
    """
    path = _path(root, found.study, found.fingerprints)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(found), indent=1))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); choose another folder with --store.") from None


def read_tried(root: Path, study: str, fingerprints: Mapping[str, str]) -> Tried | None:
    """What was last found for this study and this very code and data; None where it was not tried.

    Raises:
        StoreError: the file is damaged.
    """
    path = _path(root, study, fingerprints)
    try:
        data = json.loads(path.read_text())
        return Tried(**data | {name: tuple(data[name]) for name in ("unread", "unseen", "notes")})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path}: damaged ({error}). Delete it, and run `harness try` again.") from None


def _path(root: Path, study: str, fingerprints: Mapping[str, str]) -> Path:
    named = "-".join(value[:8] for _, value in sorted(fingerprints.items())).replace(":", "-").replace("/", "-")
    return root / "tries" / f"{study}{'-' if named else ''}{named}.json"
