"""What is wrong in a folder of cells, and what mends it. Nothing is altered; MLflow and Optuna are checked where they
are at home (`tracking/check.py`, `search/check.py`)."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.plan.cell import key_of
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.store.lines import Lines
from harness.store.merge import differing_results
from harness.store.result import Result
from harness.texts import counted


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        where: a path, or the address of a database.
        what: is wrong, a sentence without its subject.
        mend: what to do, a sentence.
        is_wrong: False for what loses nothing and misleads nobody, but should be known.
    """

    where: str
    what: str
    mend: str
    is_wrong: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.mend}"


def check_cells(cells: Cells) -> Iterator[Finding]:
    """Every cell: its specification belongs to its key, its result can be believed and is what its journal says."""
    for key in cells.all_keys():
        folder = cells.folder(key)
        if not any((folder / name).exists() for name in ("spec.json", "journal.jsonl", "result.json")):
            yield Finding(
                str(folder),
                "holds nothing yet: its process was ended as it began.",
                "The study's command trains this cell.",
                is_wrong=False,
            )
            continue
        yield from _check_specification(cells, key)
        try:
            result = cells.result(key)
            events = cells.events(key)
        except StoreError as error:
            yield _said(error)
            continue
        yield from _check_journal(cells, key, result, events)
        others = differing_results(cells, key)
        if others:
            yield Finding(
                str(folder),
                f"has {counted(len(others), 'result')} more than the one that tables show.",
                "They differ by more than rounding: look at versions and device in "
                f"{others[0].relative_to(folder)} and in result.json; move away the one that you do not trust.",
                is_wrong=False,
            )


def check_manifests(cells: Cells) -> Iterator[Finding]:
    """Every study run: it can be read, is what its name says, and names cells of the seeds that it says."""
    for path in sorted((cells.root / "studies").glob("*.json")):
        try:
            manifest = cells.manifest(path.stem)
            assert manifest is not None
        except StoreError as error:
            yield _said(error)
            continue
        if manifest.id != path.stem:
            yield Finding(str(path), f"is the manifest of {manifest.id}.", "Give it that name, or move it away.")
        yield from _check_seeds(cells, manifest, path)


def check_snapshots(cells: Cells) -> Iterator[Finding]:
    """Snapshots of sources that cells name and that are gone: those cells can be read, but not trained again."""
    used = dict[str, str]()
    for key in cells.all_keys():
        try:
            found = cells.specification(key)["fingerprints"].get("sources")
        except StoreError:
            continue
        if isinstance(found, str) and not found.startswith("pinned:"):
            used.setdefault(found, key)
    for name, key in sorted(used.items()):
        if not (cells.root / "sources" / name).is_dir():
            yield Finding(
                str(cells.root / "sources" / name),
                f"is gone: the code that cell {key} and perhaps others ran.",
                "Their results stay as they are; the study's command writes it again, if the code is still the same.",
                is_wrong=False,
            )


def check_lines(cells: Cells) -> Iterator[Finding]:
    """Every line of champions: it can be read, its patches are there, and a study run names its cells."""
    lines = Lines(cells.root)
    for name in lines.names():
        path = str(lines.path(name))
        try:
            line = lines.read(name)
        except StoreError as error:
            yield _said(error)
            continue
        num_lines = lines.path(name).read_bytes().count(b"\n")
        if num_lines > len(lines.events(name)):
            yield Finding(
                path,
                _no_events(num_lines - len(lines.events(name))),
                "They are passed over; nothing that can be read is lost.",
                is_wrong=False,
            )
        for patch in sorted(lines.patches(name)):
            if not lines.patch_path(patch).is_file():
                yield Finding(
                    str(lines.patch_path(patch)),
                    f"is gone: a proposal of line {name}.",
                    "Put it back from a backup, or judge the same patch again.",
                )
        if line and line.proposals and not (cells.root / "studies" / f"{name}.json").is_file():
            yield Finding(
                path,
                "has no study run, so that nothing says which cells are its own.",
                "`harness judge` of each of its candidates names its cells again; nothing is trained.",
            )


def _check_specification(cells: Cells, key: str) -> Iterator[Finding]:
    path = cells.folder(key) / "spec.json"
    try:
        content = cells.specification(key)
    except StoreError as error:
        yield _said(error)
        return
    found = content.get("key")
    if found != key:
        yield Finding(str(path), f"is the specification of cell {found}.", "The study's command writes it again.")
    elif content.get("format", 1) != 1 and _key_of(content) != key and not _is_of_this_version(cells, key):
        yield Finding(
            str(path),
            "says other settings, another seed or other data than its key.",
            "Put it back from a backup, or move the cell's folder away; the study's command then trains it again.",
        )


def _key_of(content: Mapping[str, Any]) -> str:
    try:
        return key_of(content)
    except (TypeError, ValueError):  # a number that JSON has not
        return ""


def _is_of_this_version(cells: Cells, key: str) -> bool:
    """Whether a trainer leaves something out of the key, such as where a file lies."""
    try:
        cells.spec(key)
    except StoreError:
        return False
    return True


def _no_events(num_lines: int) -> str:
    return f"has {counted(num_lines, 'line')} that {'is no event' if num_lines == 1 else 'are no events'}."


def _check_journal(cells: Cells, key: str, result: Result | None, events: list[dict[str, Any]]) -> Iterator[Finding]:
    path = cells.folder(key) / "journal.jsonl"
    num_lines = path.read_bytes().count(b"\n") if path.is_file() else 0
    if num_lines > len(events):
        yield Finding(
            str(path),
            _no_events(num_lines - len(events)),
            "They are passed over; nothing that can be read is lost.",
            is_wrong=False,
        )
    if result is None:
        return
    ended = [it for it in events if it["event"] == "ended"]
    if not ended:
        yield Finding(
            str(path),
            "does not say how its cell ended, but there is a result.",
            "Curves of this cell may be incomplete; its result is not concerned.",
            is_wrong=False,
        )
    elif isinstance(ended[-1].get("metrics"), Mapping) and not _agree(ended[-1]["metrics"], result.metrics):
        yield Finding(
            str(cells.folder(key) / "result.json"),
            "says other numbers than the cell's journal.",
            "One of them was edited. Put the file back from a backup, or move it away: the study's command then trains "
            "the cell again.",
        )


def _agree(journalled: Mapping[str, Any], kept: Mapping[str, float]) -> bool:
    if journalled.keys() != kept.keys():
        return False
    return all(journalled[name] == value or math.isnan(value) for name, value in kept.items())


def _check_seeds(cells: Cells, manifest: Manifest, path: Path) -> Iterator[Finding]:
    for variant in manifest.variants:
        for seed, key in variant.cells.items():
            try:
                found = cells.specification(key)["seed"]
            except StoreError:  # not started, or told with the cells
                continue
            if found != seed:
                yield Finding(
                    str(path),
                    f"names cell {key} as {variant.name} seed {seed}, whose seed is {found}.",
                    "Move the manifest away; the study's command makes it again.",
                )


def _said(error: StoreError) -> Finding:
    """An error of the store is where, what, and the next step already."""
    where, _, rest = str(error).partition(": ")
    what, _, mend = rest.partition(". ")
    return Finding(where, f"{what}.", mend)
