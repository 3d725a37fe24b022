"""Ten kinds of files of a store, each damaged in six ways: the same command mends it, or says what does."""

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.chaos.trial import COMMANDS, References, Trial, Tried, new_trial, until

# What is damaged, below the store; of a store that was left in the middle (`half`) or of one that has ended.
FILES: Mapping[str, tuple[str, bool]] = {
    "result": ("cells/*/result.json", False),
    "journal": ("cells/*/journal.jsonl", False),
    "specification": ("cells/*/spec.json", False),
    "checkpoint of a half cell": ("cells/*/checkpoint", True),
    "journal of a half cell": ("cells/*/journal.jsonl", True),
    "specification of a half cell": ("cells/*/spec.json", True),
    "manifest": ("studies/*.json", False),
    "ledger": ("tracking/ledger.db", False),
    "tracking database": ("mlflow.db", False),
    "store's name": ("store-id", False),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _fold(path: Path) -> None:
    path.unlink()
    path.mkdir()


WAYS: Mapping[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut in half": _cut,
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 16),
    "a bit flipped": _flip,
    "a folder": _fold,
    "removed": Path.unlink,
}


def kinds() -> Iterator[tuple[str, str]]:
    return ((file, way) for way in WAYS for file in FILES)


def half_store(scratch: Path) -> Trial:
    """A study whose command was killed while trainings had checkpoints."""
    trial = new_trial(scratch / "half")
    process = trial.start(pause=0.2)
    until(lambda: sum(1 for _ in trial.store.glob("cells/*/checkpoint")) == 2 or process.poll() is not None)
    process.kill()
    trial.wait(process)
    return trial


def damaged(file: str, way: str, scratch: Path, whole: Trial, half: Trial) -> Tried:
    """The command after one damage; then what it says, where it needs that: to move the file away, or to train cells
    again that failed (with a checkpoint that their own code cannot read)."""
    pattern, is_half = FILES[file]
    original = half if is_half else whole
    trial = Trial(scratch / f"{file}-{way}".replace(" ", "-").replace("'", ""))
    shutil.copytree(original.folder, trial.folder)
    path = next(it for it in sorted(trial.store.glob(pattern)) if not is_half or (it.parent / "checkpoint").exists())
    WAYS[way](path)
    how, code = f"{file}: {way}", trial.run()
    if code == 2 and path.name in trial.said[-1]:
        if path.exists():
            path.rename(trial.folder / "moved-away")
        how, code = f"{how}, moved away", trial.run()
    elif code == 1 and "--retry-failed" in trial.said[-1]:
        how, code = f"{how}, retried", trial.run(*COMMANDS[trial.command], "--retry-failed")
    trial.ended.pop(path.parent.name, None)  # the damaged cell is another matter than those that are whole
    return trial.judged("damage", how, whole, is_same=code == 0)


def every_damage(count: int, scratch: Path, references: References) -> list[Callable[[], Tried]]:
    """So many of the kinds, drawn from all."""
    chosen = random.Random(0).sample(list(kinds()), count)
    whole, half = references(), half_store(scratch)
    return [lambda it=it: damaged(*it, scratch, whole, half) for it in chosen]  # type: ignore[misc]
