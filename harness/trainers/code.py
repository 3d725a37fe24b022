"""Where the user's code is read from: a folder, a commit, and either with edits merged into it.

`sources.py` follows the code through whichever of them; nothing is written, here or there. An edit is what a change
does to files: that of commits, of a branch or of a patch. Edits are merged file by file, when a file is asked for: what
training does not read cannot clash.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Protocol

from harness.errors import StudyError
from harness.trainers.git import Blob, Repository, Touched, merged, patched
from harness.trainers.trainer import Edit

SHOWN = 10  # digits of a commit in a message


class Code(Protocol):
    """Files by path, with slashes, relative to the folder `root` on the disk."""

    root: Path

    def is_file(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes:
        """Raises OSError where the file cannot be read."""

    def is_program(self, name: str) -> bool: ...

    def glob(self, pattern: str) -> list[str]:
        """Raises StudyError where the pattern is none, or finds a link to a file outside."""


@dataclass
class Folder:
    """The code as it lies in a folder. Each file is read once: what is hashed is what runs."""

    root: Path
    _read: dict[str, bytes] = field(default_factory=dict, repr=False)

    def is_file(self, name: str) -> bool:
        return os.path.isfile(self.root / name)  # unlike a Path's, it also answers for a path that is too long

    def read(self, name: str) -> bytes:
        if name not in self._read:
            self._read[name] = (self.root / name).read_bytes()
        return self._read[name]

    def is_program(self, name: str) -> bool:
        return os.access(self.root / name, os.X_OK)

    def glob(self, pattern: str) -> list[str]:
        root = self.root
        try:
            found = sorted(path for path in root.glob(pattern) if path.is_file() and "__pycache__" not in path.parts)
        except (OSError, ValueError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StudyError(f"trainer.sources: {pattern!r} is no glob ({reason}).") from None
        outside = [path for path in found if root.resolve() not in path.resolve().parents]
        if outside:
            raise StudyError(f"trainer.sources: {outside[0]} is a link to a file outside the study's folder ({root}).")
        return [path.relative_to(root).as_posix() for path in found]


@dataclass
class Committed:
    """The code as it is in a commit, whatever the folder holds now.

    Attributes:
        own: files that are the folder's, whatever a commit holds or does to them.
    """

    root: Path
    repository: Repository
    commit: str
    own: frozenset[str] = frozenset()

    @cached_property
    def _files(self) -> Mapping[str, Blob]:
        return {name: blob for name, blob in self.repository.files(self.commit).items() if blob.is_file}

    @cached_property
    def _folder(self) -> Folder:
        return Folder(self.root)

    def is_file(self, name: str) -> bool:
        return self._folder.is_file(name) if name in self.own else name in self._files

    def read(self, name: str) -> bytes:
        return self._folder.read(name) if name in self.own else self.repository.read(self._files[name])

    def is_program(self, name: str) -> bool:
        return self._folder.is_program(name) if name in self.own else self._files[name].is_program

    def glob(self, pattern: str) -> list[str]:
        return sorted(name for name in {*self._files, *self.own} if matches(name, pattern))


class ClashError(StudyError):
    """A change's edit of a file does not merge with what is there.

    Attributes:
        change: whose edit; name: of the file; others: changes that edited the file before.
    """

    def __init__(self, change: str, name: str, others: Sequence[str], base: str) -> None:
        self.change, self.name, self.others = change, name, tuple(others)
        if others:
            pair = " and ".join(map(repr, (*others, change)))
            super().__init__(f"changes {pair} do not merge: both edit the same lines of {name}.")
        else:
            super().__init__(
                f"change {change!r} does not merge into {base}: its edit of {name} is of lines that are not there. "
                "If another change brings them, name that one: `needs:`."
            )


Contents = tuple[bytes | None, bytes | None]  # of a file before and after an edit; None where there is none


@dataclass(frozen=True)
class FileEdit:
    """What an edit does to one file.

    Attributes:
        old, new: its path before and after, None where there is no file; others than each other where it is renamed.
        contents: before and after, looked up when they are asked for.
    """

    old: str | None
    new: str | None
    contents: Callable[[], Contents]
    is_program: bool = False


@dataclass
class _History:
    """Where a file of the edited code comes from (a path below the edits, or None), and what changes do to it."""

    origin: str | None
    steps: list[tuple[str, FileEdit]] = field(default_factory=list)


class Edited:
    """Code with edits merged into it, in their order.

    Args:
        below: the code that they are merged into; base: what a message calls it.
        edits: of each change, what `edits_of` gave.
    """

    def __init__(self, below: Code, edits: Sequence["FileEdits"], base: str) -> None:
        self.root, self._below, self._base = below.root, below, base
        self._own = below.own if isinstance(below, Committed) else frozenset()
        self._histories: dict[str, _History] = {}
        self._moved: dict[str, str] = {}
        self._found: dict[str, tuple[bytes | None, bool]] = {}
        for edit in edits:
            for it in edit.files(self):
                if not self._own & {it.old, it.new}:
                    self._add(edit.change, it)
            self._found.clear()

    def is_file(self, name: str) -> bool:
        """Raises ClashError where it cannot be told."""
        return self._look_up(name)[0] is not None

    def read(self, name: str) -> bytes:
        content = self._look_up(name)[0]
        if content is None:
            raise FileNotFoundError(name)
        return content

    def is_program(self, name: str) -> bool:
        return self._look_up(name)[1]

    def glob(self, pattern: str) -> list[str]:
        there = {*self._below.glob(pattern), *(name for name in self._histories if matches(name, pattern))}
        return sorted(name for name in there if self.is_file(name))

    def _add(self, change: str, it: FileEdit) -> None:
        """Notes an edit of one file; where the file was moved by another change, it is found where it is now."""
        old = self._moved.get(it.old, it.old) if it.old else None
        if old is None or it.new is None or it.new == it.old:
            place = old or it.new or ""
            if old is None:
                self._moved.pop(place, None)
            self._histories.setdefault(place, _History(place)).steps.append((change, it))
        elif it.new in self._histories or self._below.is_file(it.new):  # no room: as two edits, of which one clashes
            self._add(change, replace(it, new=None, contents=lambda: (it.contents()[0], None)))
            self._add(change, replace(it, old=None, contents=lambda: (None, it.contents()[1])))
        else:
            history = self._histories.get(old, _History(old))
            self._histories |= {old: _History(None), it.new: _History(history.origin, [*history.steps, (change, it)])}
            self._moved |= {old: it.new, it.old or old: it.new}

    def _look_up(self, name: str) -> tuple[bytes | None, bool]:
        """A file's content, None where there is none, and whether it may be executed."""
        if name not in self._found:
            history = self._histories.get(name, _History(name))
            content = self._folded(history, history.steps)
            if content is _CLASH:
                parts = (history.steps[:count] for count in range(1, len(history.steps) + 1))
                first = next(it for it in parts if self._folded(history, it) is _CLASH)
                raise self._clash(name, history, first)
            assert content is None or isinstance(content, bytes)
            is_program = bool(history.origin and self._below.is_file(history.origin)) and self._below.is_program(
                history.origin or ""
            )
            self._found[name] = content, history.steps[-1][1].is_program if history.steps else is_program
        return self._found[name]

    def _folded(self, history: _History, steps: Iterable[tuple[str, FileEdit]]) -> object:
        """Content after these steps, None where there is no file; `_CLASH` where they do not merge."""
        origin = history.origin
        ours: object = self._below.read(origin) if origin is not None and self._below.is_file(origin) else None
        for before, after in _joined(step.contents() for _, step in steps):
            if ours is not _CLASH:
                ours = _both(ours, before, after)
        return ours

    def _clash(self, name: str, history: _History, steps: Sequence[tuple[str, FileEdit]]) -> ClashError:
        """Why the last of these steps does not merge: which changes are in its way, without which it would."""
        change = steps[-1][0]
        before = list(dict.fromkeys(other for other, _ in steps if other != change))

        def merges_without(left_out: Collection[str]) -> bool:
            return self._folded(history, [it for it in steps if it[0] not in left_out]) is not _CLASH

        found = [other for other in before if merges_without([other])]
        return ClashError(change, name, found or (before if merges_without(before) else []), self._base)


_CLASH = object()


def _joined(contents: Iterable[Contents]) -> Iterator[Contents]:
    """Edits of one file, those as one that begin where the one before ends: commits in their order take one merge."""
    joined: Contents | None = None
    for before, after in contents:
        if joined is not None and before is not None and joined[1] == before:
            joined = (joined[0], after)
            continue
        if joined is not None:
            yield joined
        joined = (before, after)
    if joined is not None:
        yield joined


@lru_cache(maxsize=10_000)
def _both(ours: object, before: bytes | None, after: bytes | None) -> object:
    """A file with an edit of it; `_CLASH` where that cannot be."""
    if ours in (before, after):
        return after
    if before is None or after is None or not isinstance(ours, bytes):
        return _CLASH
    found = merged(ours, before, after)
    return _CLASH if found is None else found


class FileEdits(Protocol):
    """What one change does to files. `names`: of all that it touches, before and after."""

    @property
    def change(self) -> str: ...

    @property
    def names(self) -> frozenset[str]: ...

    def files(self, code: Code) -> Iterator[FileEdit]:
        """Raises ClashError where a patch applies neither to the code below the edits nor to `code`."""


@dataclass(frozen=True)
class Commits:
    """The edits of one change's commits, or of its branch, in order."""

    change: str
    repository: Repository
    touched: tuple[Touched, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for it in self.touched for name in (it.old, it.new) if name)

    def files(self, code: Code) -> Iterator[FileEdit]:
        for it in self.touched:
            if any(blob and not blob.is_file for blob in (it.before, it.after)):
                continue  # a link or another repository: `sources` follows neither
            yield FileEdit(it.old, it.new, partial(self._contents, it), bool(it.after and it.after.is_program))

    def _contents(self, it: Touched) -> Contents:
        read = self.repository.read
        return read(it.before) if it.before else None, read(it.after) if it.after else None


_PATCHED = re.compile(rb"^(?:--- |\+\+\+ |rename from |rename to |copy from |copy to )(.+?)(?:\t.*)?\r?$", re.MULTILINE)


@dataclass(frozen=True)
class Patch:
    """The edits of a patch, which applies to the code below all edits, or else to what those before it make of it.

    Args:
        file: where it was read. text: as `git diff` prints it. prefix: the folder inside the repository, as its paths
            begin.
    """

    change: str
    file: Path
    text: bytes
    prefix: str
    below: Code

    @property
    def names(self) -> frozenset[str]:
        found = set()
        for path in _PATCHED.findall(self.text):
            name = path.decode("utf-8", "surrogateescape").strip('"')
            name = name[2:] if name[:2] in ("a/", "b/") else name
            if name != "/dev/null" and name.startswith(self.prefix):
                found.add(name.removeprefix(self.prefix))
        return frozenset(found)

    def files(self, code: Code) -> Iterator[FileEdit]:
        why = ""
        for onto in (self.below, code):
            before = {name: onto.read(name) for name in self.names if onto.is_file(name)}
            after = patched(self.text, before, self.prefix)
            if not isinstance(after, str):
                for name in sorted(before.keys() | after.keys()):
                    content, is_program = after.get(name, (None, False))
                    if before.get(name) != content:
                        is_program = is_program or (onto.is_program(name) if name in before else False)
                        contents = (before.get(name), content)
                        yield FileEdit(name, name, lambda found=contents: found, is_program)  # type: ignore[misc]
                return
            why = why or after
        raise StudyError(f"change {self.change!r}: {self.file} does not apply ({why}).")


def edits_of(edit: Edit, below: Code, repository: Repository, home: Path) -> FileEdits:
    """What a change's edit does to the files of the code.

    Args:
        edit: a merge among its commits is what it brings to its first parent.
        below: the code that all changes are edits of; where it is a commit, a branch is what it adds to that one.
        home: the study's folder, which a patch's path is relative to.

    Raises:
        StudyError: no such commit, branch or file.
    """
    try:
        if edit.patch:
            file = home / edit.patch
            prefix = repository.below if _is_versioned(repository) else ""
            return Patch(edit.change, file, file.read_bytes(), prefix, below)
        if edit.branch:
            tip = repository.commit(edit.branch)
            start = below.commit if isinstance(below, Committed) else repository.commit("HEAD")
            return Commits(edit.change, repository, tuple(repository.touched(repository.fork(start, tip), tip)))
        touched: list[Touched] = []
        for name in edit.commits:
            commit = repository.commit(name)
            parents = repository.parents(commit)
            touched += repository.touched(parents[0] if parents else None, commit)
        return Commits(edit.change, repository, tuple(touched))
    except OSError as error:
        raise StudyError(f"change {edit.change!r}: patch: {error.filename}: {error.strerror}.") from None
    except StudyError as error:
        raise StudyError(*(f"change {edit.change!r}: {problem}" for problem in error.problems)) from None


def _is_versioned(repository: Repository) -> bool:
    try:
        return bool(repository.top)
    except StudyError:
        return False


def fixed_names(names: Iterable[str], fixed: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each of these names that is fixed, or that Python would import in place of what is, with the glob that says so.

    >>> list(fixed_names(["eval/a/b.py", "prepare/__init__.py", "train.py"], ["eval/**", "prepare.py"]))
    [('eval/a/b.py', 'eval/**'), ('prepare/__init__.py', 'prepare.py')]
    """
    globs = [(f"{it}/*" if it.endswith("**") else it, it) for it in fixed]
    for name in sorted(names):
        same = (name, name.replace("/__init__.py", ".py"))  # a package hides the module of its name
        found = next((said for glob, said in globs if any(matches(it, glob) for it in same)), "")
        if found:
            yield name, found


def matches(name: str, pattern: str) -> bool:
    """Whether a glob, as `Path.glob` reads it, matches a path with slashes: `**` is any number of folders.

    >>> [name for name in ("a.py", "eval/a.py", "eval/b/a.py") if matches(name, "eval/**/*.py")]
    ['eval/a.py', 'eval/b/a.py']
    """
    return _match(name.split("/"), pattern.removeprefix("./").split("/"))


def _match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns or not parts:
        return not patterns and not parts
    if patterns[0] == "**":
        return any(_match(parts[skipped:], patterns[1:]) for skipped in range(len(parts)))
    return fnmatchcase(parts[0], patterns[0]) and _match(parts[1:], patterns[1:])
