"""What a function and a script of the user's have in common: how a study declares them, settings, whose code.

How each is called is in `function.py` and `command.py`.
"""

import copy
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from harness.errors import StudyError
from harness.files.scratch import scratch
from harness.metrics import Metrics, declared_metrics
from harness.names import suggestion
from harness.texts import shortened
from harness.trainers.code import SHOWN, ClashError, Code, Committed, Edited, FileEdits, Folder, edits_of, fixed_names
from harness.trainers.git import Repository
from harness.trainers.importing import import_target, importing
from harness.trainers.run import Run
from harness.trainers.settings import UserSettings, is_model, parse_model, parse_values, planned_settings
from harness.trainers.sources import PINNED, ROLE, Sources, edited_files, read_sources
from harness.trainers.trainer import Edit, Settings, Trainer
from harness.trees import flatten

_READS_FILE = ".reads"


class UserTrainer(Trainer):
    """Training by the user's own code.

    Args:
        call: `module:function`, or the words of a command.
        root: the study's folder, in which the code is found and runs.
        metrics: as the study declares them.
        model: `module:Class` of the settings; empty where the baseline's values are the schema.
        globs: further files that belong to the code.
        pinned: the user's own word for the version of the code; then edits are not looked for.
        commit: the baseline's code is what this one holds; empty for what lies in `root`.
        fixed: globs of files that no change may edit.
        home: the study's folder, which patches are relative to; `root` by default.
        limits: what else the member of the family takes, by name.
    """

    _is_planned = False  # made from a cell's specification: its settings were checked when it was planned
    version = 1  # bumped whenever the same code, settings and seed would give another number by design
    keys: tuple[str, ...] = (
        "sources",
        "root",
        "threads",
    )  # of `trainer:` in a study, beside the one that names the kind

    def __init__(
        self,
        call: str | Sequence[str],
        root: Path,
        metrics: Metrics,
        *,
        model: str = "",
        globs: Sequence[str] = (),
        pinned: str = "",
        commit: str = "",
        fixed: Sequence[str] = (),
        home: Path | None = None,
        limits: Mapping[str, float] = {},
    ) -> None:
        self.call = call if isinstance(call, str) else tuple(call)
        self.root, self.metrics, self.model = root, metrics, model
        self.globs, self.pinned, self.limits = tuple(globs), pinned, dict(limits)
        self.commit, self.fixed, self.home = commit, tuple(fixed), home or root
        self.repository = Repository(root)
        self._edited: dict[tuple[Edit, ...], Self] = {}  # what was merged once: designs ask again and again
        self._edits: dict[Edit, FileEdits] = {}
        self._unpacked: Path | None = None

    @property
    def recipe(self) -> Any:
        """Which code is called, and which logged step counts: the one that the selecting metric picks."""
        chosen = self.metrics.selecting
        call = self.call if isinstance(self.call, str) else list(self.call)
        threads = {"threads": self.num_threads} if self.num_threads > 1 else {}  # sums in another order
        return {self.kind: call, "version": self.version, "select": [chosen.name, chosen.goal], **threads}

    @property
    def num_threads(self) -> int:
        """CPU threads that libraries may use in one cell."""
        return int(self.limits.get("threads", 1))

    def threads(self, settings: Settings) -> int:
        return self.num_threads

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "call": self.call if isinstance(self.call, str) else list(self.call),
            "root": str(self.root),
            "metrics": self.metrics.to_json(),
            "model": self.model,
            "globs": list(self.globs),
            "pinned": self.pinned,
            "limits": self.limits,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        options = {name: data[name] for name in ("model", "globs", "pinned", "limits")}
        made = cls(data["call"], Path(data["root"]), Metrics.from_json(data["metrics"]), **options)
        made._is_planned = True
        return made

    @classmethod
    def from_study(cls, tree: Mapping[str, Any], root: Path) -> Self:
        """Raises StudyError with everything that is wrong with the trainer, its metrics and its sources."""
        asked, root, problems = tree["trainer"], root.resolve(), []
        unknown = [key for key in asked if key not in (cls.kind, *cls.keys)]
        problems += [f"trainer: unknown key {key!r}.{suggestion(key, (cls.kind, *cls.keys))}" for key in unknown]
        metrics: Metrics | None = None
        try:
            metrics = declared_metrics(tree.get("metrics"), tree.get("select"), tree.get("report"))
        except StudyError as error:
            problems += error.problems
        try:
            globs, pinned = _declared_sources(asked.get("sources", ()))
        except StudyError as error:
            problems += error.problems
            globs, pinned = (), ""
        model = tree.get("settings", "")
        if not isinstance(model, str) or (model and not _is_target(model)):
            problems.append(f"settings: expected 'module:Class' of a pydantic model or dataclass, not {model!r}.")
            model = ""
        problems += cls._problems_of_call(asked[cls.kind])
        limits = {key: asked[key] for key in cls.keys if key not in ("sources", "root") and key in asked}
        problems += [
            f"trainer.{key}: expected a number above 0, not {value!r}."
            for key, value in limits.items()
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0
        ]
        commit, fixed, more = _declared_code(tree)
        problems += more
        if pinned and (commit or fixed):
            problems.append("trainer.sources: pinned, so the code is not looked at; take out `commit:` and `fixed:`.")
        home = root
        root = root / str(asked.get("root", "."))
        if os.path.isdir(root):  # unlike a Path's, it also answers for a path that is too long
            root = root.resolve()
        else:
            problems.append(f"trainer.root: {asked.get('root')!r}: no such folder ({root}).")
        if metrics is None or problems:
            raise StudyError(*problems)
        options: dict[str, Any] = {
            "limits": limits,
            "model": model,
            "globs": globs,
            "pinned": pinned,
            "commit": commit,
            "fixed": fixed,
            "home": home,
        }
        made = cls(asked[cls.kind], root, metrics, **options)
        made.check_sources()
        made.check_fixed()
        return made

    @classmethod
    def _problems_of_call(cls, call: object) -> list[str]:
        """What is wrong with the form of `function:` or `command:`."""
        raise NotImplementedError

    def _modules(self) -> list[str]:
        """Modules in the study's folder that the call begins with."""
        raise NotImplementedError

    def _files(self) -> list[str]:
        """Files in the study's folder that the call names."""
        return []

    @property
    def notes(self) -> tuple[str, ...]:
        pinned = f"sources: pinned as {self.pinned!r} by the study; edits of the code are not looked for"
        code = self.code
        at = [f"sources: those of commit {code.commit[:SHOWN]}"] if isinstance(code, Committed) else []
        if isinstance(code, Committed) and code.own:
            names = ", ".join(sorted(code.own))
            at.append(f"sources: {names} of the folder, for all variants: the commit does not hold what is called")
        return (*at, *self.sources.notes) if self.sources else (pinned,)

    @cached_property
    def code(self) -> Code:
        """Where the code is read from, without edits."""
        if not self.commit:
            return Folder(self.root)
        try:
            commit = self.repository.commit(self.commit)
            return Committed(self.root, self.repository, commit, self._own)
        except StudyError as error:
            raise StudyError(*(f"commit: {problem}" for problem in error.problems)) from None

    @cached_property
    def _own(self) -> frozenset[str]:
        """Files that the call names and the baseline's commit lacks: the folder's, the same for all variants."""
        held = self.repository.files(self.repository.commit(self.commit)) if self.commit else {}
        return frozenset(name for name in self._named() if name not in held) if self.commit else frozenset()

    def _named(self) -> list[str]:
        """Files of the study's folder that the call names, whether or not a commit holds them."""
        return []

    def with_edits(self, edits: Sequence[Edit]) -> Self:
        """Raises StudyError where the code is pinned, edits do not merge, cannot be found or are of what is fixed."""
        assert not self.is_edited, "edits are merged into the baseline's code, all at once"
        asked = tuple(edits)
        if self.pinned:
            said = f"sources are pinned as {self.pinned!r}, so no change can be code; list globs instead."
            raise StudyError(*(f"change {it.change!r}: {said}" for it in asked))
        if asked not in self._edited:
            made = copy.copy(self)
            for name in ("sources", "_fingerprint"):
                made.__dict__.pop(name, None)
            base = f"commit {self.commit[:SHOWN]}" if self.commit else "the code of the baseline"
            files = [self._edits_of(it) for it in asked]
            made.code = Edited(self.code, files, base)
            try:
                sources = made.sources
            except ClashError:
                raise
            except StudyError as error:
                changes = " + ".join(it.change for it in asked)
                raise StudyError(*(f"{changes}: {problem}" for problem in error.problems)) from None
            assert sources is not None
            self._edited[asked] = made
        return self._edited[asked]

    def _edits_of(self, edit: Edit) -> FileEdits:
        """What an edit does to files. Raises StudyError where it touches what is fixed."""
        if edit not in self._edits:
            found = self._unchecked(edit)
            problems = [
                f"change {edit.change!r}: {edit} edits {name}, which is fixed ({pattern}): what measures must be the "
                "same for all. Take the change out, or the part of it that edits this file."
                for name, pattern in fixed_names(found.names, self.fixed)
            ]
            if problems:
                raise StudyError(*problems)
            self._edits[edit] = found
        return self._edits[edit]

    def at(self, commit: str) -> Self:
        """The same training by the code that another commit holds."""
        made = copy.copy(self)
        made.__dict__["_own"] = self._own
        for name in ("sources", "code", "_fingerprint"):
            made.__dict__.pop(name, None)
        made.commit, made._edited, made._edits, made._unpacked = commit, {}, {}, None
        return made

    @property
    def is_edited(self) -> bool:
        """Whether this is what `with_edits` gave."""
        return isinstance(self.code, Edited)

    def _unchecked(self, edit: Edit) -> FileEdits:
        return edits_of(edit, self.code, self.repository, self.home)

    def touched(self, edit: Edit, *, allows_fixed: bool = False) -> frozenset[str]:
        """Names of the files, in the study's folder, that an edit touches.

        Raises:
            StudyError: it cannot be found; or it touches what is fixed, and that is not allowed.
        """
        return (self._unchecked(edit) if allows_fixed else self._edits_of(edit)).names

    def check_fixed(self) -> None:
        """Raises StudyError for a glob under `fixed` that matches no file: a slip would protect nothing."""
        missing = [it for it in self.fixed if not self.code.glob(f"{it}/*" if it.endswith("**") else it)]
        if missing:
            raise StudyError(*(f"fixed: {it!r} matches no file in {self.root}." for it in missing))

    def edited_since(self, fingerprints: Mapping[str, str], store: Path) -> str:
        before = fingerprints.get(ROLE, "")
        if self.sources is None or before in ("", self._fingerprint):
            return ""
        names = edited_files(store / ROLE / before, self.sources)
        return f"the code was edited since ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"

    def check_sources(self) -> None:
        """Raises StudyError where the call's code cannot be read, without running any of it."""
        sources = self.sources
        if sources is not None and not sources.files:
            raise StudyError(
                f"trainer: no word of {' '.join(self.call)} is a file of {self.root}, so an edit of its code would go "
                "unnoticed; list its files, as `sources: ['*.sh']`, or vouch for it, as `sources: {pinned: v1}`."
            )

    @cached_property
    def sources(self) -> Sources | None:
        """The code as it is now; None where it is pinned. Read once: what is hashed is what runs."""
        if self.pinned:
            return None
        modules = self._modules() + ([self.model.partition(":")[0]] if self.model else [])
        return read_sources(self.code, modules=modules, globs=(*self._files(), *self.globs))

    def parse(self, tree: Mapping[str, Any]) -> UserSettings:
        if self._is_planned:
            return planned_settings(tree)
        if not self.model:
            return parse_values(tree)
        with importing(self._folder_now, [top_of(self.model)]):
            return parse_model(tree, settings_model(self.model))

    @property
    def _folder_now(self) -> Path:
        """A folder that the code can be imported from before there is a snapshot."""
        if not self.commit or self.sources is None:
            return self.root
        if self._unpacked is None:
            unpacking = ExitStack()
            self._unpacked = unpacking.enter_context(scratch())
            weakref.finalize(self, unpacking.close)
            self.sources.write_snapshot(self._unpacked / self._fingerprint)
        return self._unpacked / self._fingerprint

    def fingerprints(self, settings: Settings) -> dict[str, str]:
        return {ROLE: PINNED + self.pinned if self.sources is None else self._fingerprint}

    @cached_property
    def _fingerprint(self) -> str:
        return self.sources.fingerprint if self.sources else PINNED + self.pinned

    def prepare(self, settings: Iterable[Settings], *, store: Path) -> None:
        """Keeps the snapshot that cells run from."""
        if self.sources is not None:
            self.sources.write_snapshot(store / ROLE / self._fingerprint)

    def code_names(self, folder: Path) -> list[str]:
        """Top-level modules and packages of the user's code in the folder that `code_folder` gave."""
        if self.pinned:
            return [top_of(it) for it in (*self._modules(), self.model) if it]
        return [path.stem for path in folder.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))]

    def code_folder(self, run: Run) -> Path:
        """From where the run's code is taken: the snapshot, or the study's folder where the code is pinned."""
        if run.sources is None and not self.pinned:
            raise StudyError(
                f"the snapshot of the sources {run.fingerprints.get(ROLE)} of cell {run.key} is not in the store; "
                "plan the study again: the same command does."
            )
        return run.sources or self.root


class Reads:
    """Which settings a cell's training has read, over all its attempts up to the last `write`."""

    def __init__(self, folder: Path, known: Iterable[str]) -> None:
        self._path, self._known = folder / _READS_FILE, list(known)
        self._seen = set(self._path.read_text().splitlines()) if self._path.is_file() else set()
        self._new: list[str] = []  # that the file does not hold yet

    def note(self, path: str) -> None:
        if path not in self._seen:
            self._seen.add(path)
            self._new.append(path)

    def write(self) -> None:
        """Keeps for the next attempt what has been read so far."""
        if self._new:
            with self._path.open("a") as file:
                file.write("".join(f"{path}\n" for path in self._new))
            self._new.clear()

    @property
    def unread(self) -> list[str]:
        return [path for path in self._known if path not in self._seen]


def settings_model(target: str) -> type:
    model = import_target(target)
    if not is_model(model):
        raise StudyError(f"settings: {target} is no pydantic model or dataclass, but {model!r}.")
    assert isinstance(model, type)
    return model


def _declared_code(tree: Mapping[str, Any]) -> tuple[str, tuple[str, ...], list[str]]:
    """`commit:` and `fixed:` of a study; what is wrong with them."""
    commit, fixed, problems = tree.get("commit", ""), tree.get("fixed", ()), []
    if not isinstance(commit, str):
        problems.append(f"commit: expected a text, not {commit!r}; put a hash of digits alone in quotes.")
        commit = ""
    if not isinstance(fixed, list | tuple) or not all(isinstance(it, str) and it for it in fixed):
        problems.append(f"fixed: expected a list of globs, such as [evaluate.py, 'eval/**'], not {fixed!r}.")
        fixed = ()
    outside = [it for it in fixed if Path(it).is_absolute() or ".." in Path(it).parts]
    problems += [f"fixed: {shortened(it, 60)!r} reaches outside the study's folder." for it in outside]
    return commit.strip(), tuple(it for it in fixed if it not in outside), problems


def _declared_sources(declared: object) -> tuple[tuple[str, ...], str]:
    """Globs and pinned version, of `sources:` in a study."""
    if isinstance(declared, str) and declared.split(" ", 1)[0] == "pinned":
        declared = {"pinned": declared.removeprefix("pinned").strip().strip("\"'")}
    if isinstance(declared, Mapping) and set(declared) == {"pinned"} and str(declared["pinned"]).strip():
        return (), str(declared["pinned"]).strip()
    if isinstance(declared, list | tuple) and all(isinstance(it, str) and it for it in declared):
        return tuple(declared), ""
    raise StudyError(f"trainer.sources: expected a list of globs, or {{pinned: v1}}, not {declared!r}.")


def _is_target(text: object) -> bool:
    if not isinstance(text, str):
        return False
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in module.split(".")) and name.isidentifier()


def top_of(target: str) -> str:
    """The top-level module or package of `package.module:name`."""
    return target.partition(":")[0].partition(".")[0]


def thread_environment(count: int) -> dict[str, str]:
    """Variables by which numeric libraries learn how many threads to use: cells share the machine."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    return dict.fromkeys(names, str(count))


def leaves(settings: Any) -> list[str]:
    """Dotted paths of every setting."""
    return list(flatten(settings.tree()))
