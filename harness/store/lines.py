"""A line of champions, on disk: what was proposed, judged and promoted, in order.

    mlruns/lines/<id>.jsonl           an event a line, added and synced: begun, proposed, judged, promoted
    mlruns/lines/<id>.lock            held by the one who judges
    mlruns/lines/patches/<hash>.diff  patches that were judged, kept with the line, which names them without the folder

The cells that a verdict rests on are in the store like any others; what a verdict is, is `api.judging`'s matter.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from harness.errors import DamagedError, StoreError
from harness.files.atomic import write_atomically
from harness.files.locks import locked, trying
from harness.store.journal import Journal, writing

FORMAT = 1


@dataclass(frozen=True)
class Proposed:
    """One proposal, with what became of it.

    Attributes:
        number: from 1, over the whole line. champion: number of the champion that it was judged against, from 0.
        identity: of its code and settings. entry: as a change of a study.
        rule: stream, each or explore. level: that it may spend; 1 for explore.
        first_seed: of the pairs that it is judged by; 0 for the champion's first.
        verdict: empty while it is open. gain, low, high: mean improvement with a 95% interval, as the metric is logged.
        promoted: number of the champion that it became; 0 where it became none.
    """

    number: int
    champion: int
    name: str
    identity: str
    entry: dict[str, Any]
    rule: str
    level: float
    first_seed: int = 0
    verdict: str = ""
    reason: str = ""
    num_seeds: int = 0
    log_e: float = 0.0
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    promoted: int = 0


@dataclass(frozen=True)
class Champion:
    """Attributes:
    number: from 0, which is where the line began. first_seed: from which on seeds are fresh for it.
    entries: what it holds beside the line's base, as changes of a study.
    """

    number: int
    first_seed: int
    entries: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Line:
    """Attributes:
    study_run: id of the study's own run, by whose baseline everything is judged. base: commit where it began, or empty.
    alpha: of the whole stream.
    """

    id: str
    study_run: str
    base: str
    alpha: float
    champions: tuple[Champion, ...]
    proposals: tuple[Proposed, ...] = field(default=())

    @property
    def champion(self) -> Champion:
        return self.champions[-1]


class Lines:
    """The lines of a store."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "lines"

    @contextlib.contextmanager
    def judging(self, name: str, *, waits: bool = True) -> Iterator[None]:
        """Waits until nobody else judges in this line.

        Raises:
            StoreError: somebody does, and this one does not wait.
        """
        path = self.folder / f"{name}.lock"
        with contextlib.ExitStack() as holding:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                if waits:
                    holding.enter_context(locked(path))
                elif not holding.enter_context(trying(path)):
                    raise StoreError(
                        f"{self.path(name)}: is judged in now, by another command; run this one when that is over."
                    )
            yield

    def append(self, line: str, event: str, /, **content: Any) -> None:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with Journal(self.path(line)) as journal:
            journal.append({"event": event, **_with_patches(content, lambda patch: Path(patch).name)})

    def remove(self, line: str) -> None:
        """Forgets a line, if it is there."""
        with writing(self.folder):
            for suffix in ("jsonl", "lock"):
                (self.folder / f"{line}.{suffix}").unlink(missing_ok=True)

    def keep_patch(self, text: bytes) -> Path:
        """Where a patch's text is kept with the line."""
        path = self.folder / "patches" / f"{hashlib.sha256(text).hexdigest()[:16]}.diff"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        return path

    def path(self, line: str) -> Path:
        return self.folder / f"{line}.jsonl"

    def patch_path(self, name: str) -> Path:
        return self.folder / "patches" / Path(name).name

    def patches(self, line: str) -> set[str]:
        """Names of the files in `patches` that a line's proposals are.

        Raises:
            DamagedError: as `read`.
        """
        found = self.read(line)
        return {Path(it.entry["patch"]).name for it in found.proposals if "patch" in it.entry} if found else set()

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.jsonl"))

    def read(self, name: str) -> Line | None:
        """A line as it stands; None where it was not begun.

        Raises:
            DamagedError: the file holds something else.
        """
        path = self.path(name)
        told = _Told(name)
        try:
            for event in self.events(name):
                told.hear(_with_patches(event, lambda patch: str(self.patch_path(patch))))
            return told.line
        except (TypeError, KeyError, AttributeError, AssertionError) as error:
            raise DamagedError(f"{path}: is no line of champions ({error}). Move it away to begin a new one.") from None

    def events(self, name: str) -> list[dict[str, Any]]:
        """A line's events, patches by their names alone; half a line that a dying process left is passed over.

        Raises:
            DamagedError: there is no file to read, but something else.
        """
        try:
            lines = self.path(name).read_text().splitlines()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise DamagedError(
                f"{self.path(name)}: cannot be read ({error}). Move it away to begin a new one."
            ) from None
        found = []
        for text in filter(str.strip, lines):
            with contextlib.suppress(ValueError, RecursionError):  # of JSON
                event = json.loads(text)
                found.append(_with_patches(event, lambda patch: Path(patch).name))
        return found


def _with_patches(content: dict[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """An event with the patches of its entries named otherwise."""

    def renamed(entry: dict[str, Any]) -> dict[str, Any]:
        return entry | ({"patch": place(entry["patch"])} if "patch" in entry else {})

    if not isinstance(content, dict):
        raise ValueError("an event is an object")
    found = dict(content)
    if "entry" in found:
        found["entry"] = renamed(found["entry"])
    if "entries" in found:
        found["entries"] = [renamed(it) for it in found["entries"]]
    return found


@dataclass
class _Told:
    """A line as its events tell it, one after the other; hundreds of proposals are looked up by their numbers."""

    name: str
    begun: dict[str, Any] = field(default_factory=dict)
    champions: list[Champion] = field(default_factory=list)
    proposals: dict[int, Proposed] = field(default_factory=dict)

    def hear(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "begun":
            if event["format"] != FORMAT:
                raise TypeError(f"format {event['format']}; this harness reads {FORMAT}")
            self.begun, self.champions, self.proposals = event, [Champion(0, event["first_seed"])], {}
            return
        assert self.begun, "a line begins with `begun`"
        if kind in ("proposed", "judged"):
            made = Proposed(**{key: value for key, value in event.items() if key in _PROPOSED})
            self.proposals.pop(made.number, None)  # the latest judged stands last
            self.proposals[made.number] = made
            return
        self.champions.append(Champion(event["number"], event["first_seed"], tuple(event["entries"])))
        if known := self.proposals.get(event["proposal"]):
            self.proposals[known.number] = replace(known, promoted=event["number"])

    @property
    def line(self) -> Line | None:
        it = self.begun
        if not it:
            return None
        champions, proposals = tuple(self.champions), tuple(self.proposals.values())
        return Line(self.name, it["study_run"], it["base"], it["alpha"], champions, proposals)


_PROPOSED = frozenset(it.name for it in fields(Proposed))
