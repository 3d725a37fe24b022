"""`study`: a range of commits as a study. Which of them helped?"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import OutputError, StudyError
from harness.execution.provenance import command_line
from harness.study.compose import NAMED
from harness.study.history import History, grouping, in_words, read_history
from harness.study.load import load_study, read_composed
from harness.study.yaml_file import write_yaml
from harness.trainers.registry import trainer_from_study
from harness.trainers.user import UserTrainer

ALL = "head"  # the combination of all changes
IN_ORDER = "commits"  # the path of all changes


@dataclass(frozen=True)
class Studied:
    """A study that was written.

    Attributes:
        path: of its file. base, tip: whole hashes of the commits that the range begins after and ends with.
    """

    path: Path
    base: str
    tip: str
    history: History


def study_range(commits: str, study: str | Path, *, output: str | Path = "commits.yaml", by: str = "commit") -> Studied:
    """Writes a study whose baseline is the code of the range's beginning and whose changes are its commits.

    Its design leaves each change out of all of them; `path` adds them one by one in their order.

    Args:
        commits: `BASE..TIP`; HEAD where no TIP stands.
        study: a study of one's own training, which the new one extends: metrics, settings and profiles are its own;
            its changes are dropped.
        by: what one change is; see `grouping`.

    Raises:
        StudyError: no such range or study, or no commit of the range can be a change. OutputError: the file is there,
            or cannot be written.
    """
    output = Path(output)
    if output.exists() or output.is_symlink():
        raise OutputError(f"{output}: is there already, and nothing was written; --output names another file.")
    key = grouping(by)
    loaded, composed = load_study(study), read_composed(study)
    if not isinstance(loaded.trainer, UserTrainer) or loaded.trainer.pinned:
        raise StudyError(
            f"{study}: has no code whose commits could be changes; name a study with a function or a command of your "
            "own under `trainer:`, not pinned."
        )
    repository = loaded.trainer.repository
    base, tip = _ends(commits, loaded.trainer)
    trainer = trainer_from_study({**composed.tree, "commit": base}, composed.root)
    assert isinstance(trainer, UserTrainer)
    history = read_history(trainer, repository.history(base, tip), tip, by=key)
    if not history.changes:
        said = "\n".join(["", *(f"  {line}" for line in in_words(history.left_out))])
        raise StudyError(f"{commits}: no commit can be a change, and nothing was written.{said}")
    found = Studied(output, base, tip, history)
    text = _text(found, commits, composed.path, composed.tree)
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror}).") from None
    return found


def _ends(commits: str, trainer: UserTrainer) -> tuple[str, str]:
    """Whole hashes of the commits that a range begins after and ends with."""
    first, dots, last = commits.partition("..")
    if not dots or not first or last.startswith("."):
        raise StudyError(f"{commits!r}: expected BASE..TIP, such as v1.0..HEAD.")
    base, tip = trainer.repository.commit(first), trainer.repository.commit(last or "HEAD")
    fork = trainer.repository.fork(base, tip)
    if fork != base:
        raise StudyError(f"{commits}: {last or 'HEAD'} does not stand on {first}; their histories part at {fork[:10]}.")
    if base == tip:
        raise StudyError(f"{commits}: holds no commit.")
    return base, tip


def _text(found: Studied, commits: str, extended: Path, below: Mapping[str, Any]) -> str:
    changes = found.history.changes
    names = [it.name for it in changes]
    entries = [it for key in NAMED for it in below.get(key, [])]
    dropped = [it["name"] if isinstance(it, dict) else it for it in entries] + list(below.get("paths", {}))
    tree: dict[str, Any] = {
        "title": f"Commits {commits} ({found.base[:10]}..{found.tip[:10]})",
        "extends": os.path.relpath(extended.resolve(), found.path.parent.resolve()),
        "drop": [it for it in dropped if it not in (*names, ALL, IN_ORDER)],
        "commit": found.base,
        "changes": [
            {"name": it.name, "summary": it.summary, "commit": _one_or_all(it.commits)}
            | ({"needs": _one_or_all(it.needs)} if it.needs else {})
            for it in changes
        ],
        "combinations": [{"name": ALL, "summary": "all of them", "changes": names}],
        "paths": {IN_ORDER: names},
        "designs": [f"leave-one-out:{ALL}"],
    }
    head = [f"Written by `{command_line()}`.", *found.history.notes]
    if found.history.left_out:
        head += ["Left out:", *(f"  {line}" for line in in_words(found.history.left_out))]
    comments = "".join(f"# {line if line.isprintable() else ascii(line)}\n" for line in head)
    return comments + write_yaml({key: value for key, value in tree.items() if value})


def _one_or_all(names: Sequence[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)
