"""What `judge` is asked: a line of champions of a study, and a candidate as a change of that study."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.api.confirmation import fresh_seeds
from harness.api.work import Work, plan_work
from harness.errors import ResultsError, StudyError
from harness.plan.variants import Variant
from harness.store.lines import Champion, Line, Lines
from harness.study.compose import Composed
from harness.study.history import change_name
from harness.study.load import make_study, read_composed
from harness.study.study import Study
from harness.texts import shortened
from harness.trainers.git import Logged, run_git
from harness.trainers.user import UserTrainer
from harness.trees import flatten, layered

WORKTREE = "."
_LEFT_OUT = (
    "changes",
    "combinations",
    "paths",
    "designs",
    "published",
    "published_curves",
    "claims",
    "nuisance",
    "drop",
    "extends",
)


@dataclass(frozen=True)
class Asked:
    """The study of a line, and how it is trained."""

    study: str | Path
    profile: str
    store: Path
    request: Mapping[str, Any]

    @cached_property
    def composed(self) -> Composed:
        return read_composed(self.study)

    def line_id(self, line: str) -> str:
        if not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", line):
            raise StudyError(f"--line {line!r}: expected small letters and digits joined by - or .")
        return f"{self.declared({}).name}-{self.profile}-{line}"

    def declared(self, more: Mapping[str, Any]) -> Study:
        """The study without its own changes, and with more."""
        composed = self.composed
        tree = {key: it for key, it in composed.tree.items() if key not in _LEFT_OUT}
        name = re.sub(r"[^a-z0-9]+", "-", composed.path.stem.lower()).strip("-")
        return make_study({"name": name, "title": name, **tree, **more}, root=composed.root)

    def planned(self, more: Mapping[str, Any], seeds: Sequence[int], settings: Mapping[str, Any] = {}) -> Work:
        options = {**self.request, "store": self.store, "profile": self.profile, "seeds": tuple(seeds)}
        made = plan_work(self.declared(more), **options, designs=("add-one",), settings=settings)
        return replace(made, asked=str(self.study))

    def side(self, base: str, entries: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> tuple[Work, Variant]:
        """A line's base with these changes: their settings, later ones on top, and their code, a chain in which each
        needs the one before it."""
        code: list[dict[str, Any]] = []
        settings: dict[str, Any] = {}
        for entry in entries:
            settings = layered(settings, flatten(entry.get("overrides", {})))
            if "commit" in entry or "patch" in entry:
                plain = {key: it for key, it in entry.items() if key != "overrides"}
                code.append({**plain, "needs": [it["name"] for it in code[-1:]]})
        work = self.planned({**at_commit(base), "changes": code}, seeds, settings)
        return work, work.plan.make_variant(tuple(it["name"] for it in code))

    @property
    def trainer(self) -> UserTrainer | None:
        trainer = self.declared({}).trainer
        return trainer if isinstance(trainer, UserTrainer) and not trainer.pinned else None

    def beginning(self, candidate: str, champion: str) -> str:
        """The commit where a new line begins; empty where the study's code is no matter of commits."""
        trainer = self.trainer
        if trainer is None:
            return ""
        repository = trainer.repository
        if champion:
            return repository.commit(champion)
        if trainer.commit:
            return repository.commit(trainer.commit)
        if not candidate:
            return ""
        if candidate == WORKTREE or _is_patch(candidate):
            return repository.commit("HEAD")
        commit = repository.commit(candidate)
        parents = repository.parents(commit)
        return parents[0] if parents else commit

    def check(self, line: Line, alpha: float | None, champion: str) -> None:
        """Raises StudyError where the line began otherwise than is asked for now."""
        if alpha is not None and alpha != line.alpha:
            raise StudyError(
                f"--alpha {alpha:g}: line {line.id} declared {line.alpha:g} before its first verdict, and that holds; "
                "--line begins another one."
            )
        if champion and self.trainer and self.trainer.repository.commit(champion) != line.base:
            raise StudyError(f"--champion {champion}: line {line.id} began at {line.base[:10]}; --line begins another.")
        now = self.planned(at_commit(line.base), (0,)).plan.id
        if now != line.study_run:
            raise StudyError(
                f"line {line.id} began with another baseline (study run {line.study_run}, now {now}): what it decided "
                "would not be comparable. Undo the edit of the study, or begin another line (--line)."
            )

    def entry(self, candidate: str, change: Mapping[str, Any], line: Line, lines: Lines) -> dict[str, Any]:
        """The candidate as a change of a study, whatever becomes of its branch or its patch."""
        if not candidate and not change:
            raise StudyError("nothing to judge: name a commit, a branch, a patch, `.`, or settings (--set).")
        taken = {it.name for it in line.proposals}
        settings = ", ".join(f"{path} = {value}" for path, value in change.items())
        if not candidate:
            return {"name": change_name(settings, "", taken), "summary": settings, "overrides": dict(change)}
        trainer = self.trainer
        if trainer is None:
            raise StudyError(f"{self.study}: has no code that a commit or a patch could be a change of; use --set.")
        code, summary = _code(candidate, trainer, line, lines)
        name = change_name(summary, code["commit"][0] if "commit" in code else "patch", taken)
        summary = shortened("; ".join(filter(None, [summary, settings])), 200)
        return {"name": name, "summary": summary, **code} | ({"overrides": dict(change)} if change else {})


def line_called(lines: Lines, name: str) -> Line:
    """A line that was begun.

    Raises:
        ResultsError: there is no such line.
    """
    found = lines.read(name)
    if found is None:
        known = ", ".join(lines.names()) or "none"
        raise ResultsError(f"{lines.folder.parent}: no line {name}; there is {known}. `harness judge` begins one.")
    return found


def at_commit(base: str) -> dict[str, Any]:
    """Of a study: that its code is what this commit holds."""
    return {"commit": base} if base else {}


def begun(name: str, asked: Asked, base: str, alpha: float) -> Line:
    """A new line, which is written with its first proposal: a request that is refused begins none."""
    if not 0 < alpha < 1:
        raise StudyError(f"--alpha {alpha:g}: expected a level between 0 and 1.")
    work = asked.planned(at_commit(base), (0,))
    return Line(name, work.plan.id, base, alpha, (Champion(0, fresh_seeds(work.cells, 1)[0]),))


def _code(candidate: str, trainer: UserTrainer, line: Line, lines: Lines) -> tuple[dict[str, Any], str]:
    """What a candidate does to the code, as keys of a change; and what it is called."""
    repository, path = trainer.repository, Path(candidate)
    if candidate == WORKTREE:
        text = run_git(repository.top, "diff", "--no-ext-diff", "--no-textconv", "--binary", "--full-index", "HEAD")
        if not text.strip():
            raise StudyError("the working tree adds nothing to HEAD (files that git does not know are left out).")
        return {"patch": str(lines.keep_patch(text))}, "working tree"
    if _is_patch(candidate):
        try:
            return {"patch": str(lines.keep_patch(path.read_bytes()))}, path.stem
        except OSError as error:
            raise StudyError(f"{candidate}: cannot be read ({error.strerror}).") from None
    commit = repository.commit(candidate)
    if not repository.is_branch(candidate):
        if line.base and repository.is_part(commit, line.base):
            raise StudyError(f"{candidate}: commit {commit[:10]} is part of {line.base[:10]}, where the line began.")
        return {"commit": [commit]}, repository.logged(commit).subject
    history = [it for it in repository.history(line.base, commit) if len(it.parents) < 2]
    added = _added(history, line)
    if not added:
        raise StudyError(f"branch {candidate} adds nothing to the champion.")
    return {"commit": [it.commit for it in added]}, candidate if len(added) > 1 else added[0].subject


def _added(history: Sequence[Logged], line: Line) -> list[Logged]:
    """What a branch adds to the champion; where it adds nothing, because it was promoted, what it had added then."""
    for champion in reversed(line.champions):
        held = {it for entry in champion.entries for it in entry.get("commit", ())}
        added = [it for it in history if it.commit not in held]
        commits = [it.commit for it in added]
        promoted = (it for it in line.proposals if it.promoted and it.champion == champion.number)
        if added and (champion == line.champion or any(it.entry.get("commit") == commits for it in promoted)):
            return added
    return []


def _is_patch(candidate: str) -> bool:
    return Path(candidate).suffix in (".diff", ".patch") or Path(candidate).is_file()
