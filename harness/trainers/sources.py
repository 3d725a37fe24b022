"""Whose code a cell runs: the user's sources, as a hash that a comment does not move, and as a snapshot to run from.

The closure of imports inside the study's folder is followed without running anything, imports within functions
included; what Python cannot show (a configuration file, an import by a computed name) is declared as globs. Cells run
from a snapshot of these files, so that an edit while a study trains changes nothing that runs.
"""

import ast
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from harness.errors import StoreError, StudyError
from harness.files.atomic import move_synced, temporary_beside, write_atomically
from harness.trainers.code import ClashError, Code

ROLE = "sources"  # among a cell's fingerprints
PINNED = "pinned:"  # before a version that the user vouches for, in place of a hash
_HASH_LENGTH = 16
_MOST_PARSED = 1_000  # versions of files that are remembered: variants share most of theirs


@dataclass(frozen=True)
class Sources:
    """The user's code as it was read.

    Attributes:
        files: path inside the study's folder, with slashes, to content.
        programs: of these, those that may be executed.
        notes: what could not be followed, a sentence each.
    """

    files: Mapping[str, bytes]
    programs: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The same whatever comments and formatting Python files have; other files count byte by byte."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(json.dumps([name, _meaning(name, content)]).encode())
        return digest.hexdigest()[:_HASH_LENGTH]

    @cached_property
    def vocabulary(self) -> tuple[frozenset[str], frozenset[str]]:
        """Names that the Python files use, and names that they bring: variables, functions, attributes; modules, with
        `import ` before. By the text alone: what is brought in one file counts as brought in all."""
        found = [_vocabulary(content) for name, content in self.files.items() if name.endswith(".py")]
        modules = {f"import {part}" for name in self.files for part in name.removesuffix(".py").split("/")}
        return frozenset().union(*(it[0] for it in found)), frozenset(modules).union(*(it[1] for it in found))

    def write_snapshot(self, folder: Path) -> None:
        """Writes the files into `folder`, as a whole, if it is not there yet; what a death has taken of it, again.

        Raises:
            StoreError: it cannot be written.
        """
        temporary, is_there = temporary_beside(folder), folder.is_dir()
        try:
            if is_there:
                with suppress(PermissionError):
                    os.utime(folder)  # in use from now on: `gc` leaves alone what is new
                self._write_missing(folder)
            else:
                self._write_missing(temporary)
                move_synced(temporary, folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if is_there or not folder.is_dir():  # else another process was first, and may train from it
                raise StoreError(f"{folder}: the snapshot of the sources cannot be written ({error}).") from None

    def _write_missing(self, folder: Path) -> None:
        """Each file at once: another process may train from the folder."""
        for name, content in self.files.items():
            path = folder / name
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content, syncs_folder=False)
                if name in self.programs:
                    path.chmod(0o755)


def read_sources(code: Code, *, modules: Iterable[str] = (), globs: Iterable[str] = ()) -> Sources:
    """The closure of the imports of modules and of the Python files that globs name, and whatever else globs name.

    Args:
        code: the study's folder, or what a commit holds of it; nothing outside it is followed.
        modules: dotted names, importable from there. globs: relative to it.

    Raises:
        StudyError: a module that is not there, a glob that matches nothing or reaches outside, a Python file that
            cannot be parsed; everything at once. ClashError: edits of a file that is followed do not merge.
    """
    root, problems = code.root, []
    found: list[str] = []
    for module in modules:
        names = list(_module_files(code, module))
        if not any(_is_module(module, name) for name in names):
            problems.append(
                f"trainer: no module {module} in {root}; expected {module.replace('.', '/')}.py there. `root:` names "
                "another folder; for code that is installed, vouch for its version: `sources: {pinned: v1}`."
            )
        found += names
    for pattern in globs:
        try:
            found += _glob(code, pattern)
        except ClashError:
            raise
        except StudyError as error:
            problems += error.problems
    closure = _Closure(code)
    for name in found:
        closure.add(name)
    problems += closure.problems
    if problems:
        raise StudyError(*problems)
    programs = frozenset(name for name in closure.files if code.is_program(name))
    return Sources(closure.files, programs, tuple(closure.notes))


class _Closure:
    """Files reached so far; each is read once."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self.files: dict[str, bytes] = {}
        self.notes: list[str] = []
        self.problems: list[str] = []

    def add(self, name: str) -> None:
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name in self.files:
                continue
            try:
                self.files[name] = self._code.read(name)
                imports, computed = _imports(name, self.files[name]) if name.endswith(".py") else ((), ())
            except (OSError, SyntaxError, ValueError) as error:
                self.problems.append(f"trainer.sources: {name}: cannot be read ({error}).")
                continue
            self.notes += [
                f"{name}:{line} imports by a computed name, which cannot be followed; list what it may import under "
                "trainer.sources."
                for line in computed
            ]
            waiting += [file for module in imports for file in _module_files(self._code, module)]


@lru_cache(maxsize=_MOST_PARSED)
def _imports(name: str, content: bytes) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Dotted names of what a file may import of the study's folder, and the lines that import by a computed name."""
    found: list[str] = []
    computed: list[int] = []
    package = tuple(name.removesuffix(".py").split("/")[:-1])
    bases = [(), package] if package else [()]  # a script imports its neighbours, too
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            found += [".".join((*base, alias.name)) for alias in node.names for base in bases]
        elif isinstance(node, ast.ImportFrom):
            origin = [package[: max(0, len(package) - node.level + 1)]] if node.level else bases
            for base in origin:
                start = ".".join((*base, *filter(None, [node.module])))
                found += [(start + more).strip(".") for more in ("", *(f".{alias.name}" for alias in node.names))]
        elif isinstance(node, ast.Call) and (called := _imports_by_call(node)) is not None:
            if called:
                found.append(called)
            else:
                computed.append(node.lineno)
    return tuple(found), tuple(computed)


@lru_cache(maxsize=_MOST_PARSED)
def _vocabulary(content: bytes) -> tuple[frozenset[str], frozenset[str]]:
    used: set[str] = set()
    brought: set[str] = set()
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            (used if isinstance(node.ctx, ast.Load) else brought).add(name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            brought.add(node.name)
        elif isinstance(node, ast.arg):
            brought.add(node.arg)
        elif isinstance(node, ast.Import):
            used |= {f"import {part}" for alias in node.names for part in alias.name.split(".")}
            brought |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used |= {f"import {part}" for part in (node.module or "").split(".")}
            used |= {alias.name for alias in node.names}
            brought |= {alias.asname for alias in node.names if alias.asname}
    return frozenset(used), frozenset(brought)


def _imports_by_call(node: ast.Call) -> str | None:
    """The module that `import_module("name")` imports; empty where the name is computed; None for another call."""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called not in ("import_module", "__import__"):
        return None
    name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
    return name if isinstance(name, str) and not name.startswith(".") else ""


def _module_files(code: Code, module: str) -> Iterator[str]:
    """The files that importing this module reads inside the study's folder: its packages' `__init__.py`, and its own.
    The harness itself is no code of the user's, even where it lies beside it."""
    parts = module.split(".")
    if parts[0] == "harness" or not all(part.isidentifier() for part in parts):
        return
    for depth in range(1, len(parts) + 1):
        place = "/".join(parts[:depth])
        for name in (f"{place}/__init__.py", f"{place}.py"):
            if code.is_file(name):
                yield name


def _is_module(module: str, name: str) -> bool:
    place = module.replace(".", "/")
    return name in (f"{place}.py", f"{place}/__init__.py")


def _glob(code: Code, pattern: str) -> list[str]:
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise StudyError(
            f"trainer.sources: {pattern!r} reaches outside the study's folder ({code.root}); move the files in."
        )
    found = code.glob(pattern)
    if not found:
        raise StudyError(f"trainer.sources: {pattern!r} matches no file in {code.root}.")
    return found


@cache
def library_versions(folder: Path) -> str:
    """Versions of Python and of the installed libraries that the code in a folder imports, anywhere in it.

    By what the code says, not by what is loaded: the same for every cell of the same code.

    >>> library_versions(Path("no/such/folder")).startswith("python 3.")
    True
    """
    names = {name.partition(".")[0] for path in folder.rglob("*.py") for name in _imported_names(path)}
    inside = {path.stem for path in folder.glob("*")}
    found = []
    for name in sorted(names - inside - sys.stdlib_module_names - {"harness", ""}):
        for distribution in packages_distributions().get(name, [])[:1]:
            found.append(f"{distribution} {version(distribution)}")
    return ", ".join([f"python {platform.python_version()}", *dict.fromkeys(found)])


def _imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def edited_files(before: Path, after: "Sources") -> list[str]:
    """Which files of a snapshot differ in meaning from the sources as they are now; all, where it is gone."""
    kept = (it for it in before.rglob("*") if it.is_file() and it.parent.name != "__pycache__")
    known = {it.relative_to(before).as_posix(): it.read_bytes() for it in kept}
    names = sorted(known.keys() | after.files.keys())
    return [
        name
        for name in names
        if name not in known
        or name not in after.files
        or _meaning(name, known[name]) != _meaning(name, after.files[name])
    ]


@lru_cache(maxsize=_MOST_PARSED)
def _meaning(name: str, content: bytes) -> str:
    """What counts of a file: of Python its syntax tree, in a form that is the same under every version of Python."""
    if name.endswith(".py"):
        return json.dumps(_plain(ast.parse(content)))
    return hashlib.sha256(content).hexdigest()


def _plain(node: Any) -> Any:
    """A syntax tree as lists; empty fields are left out, for newer versions of Python add such fields."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return [type(node).__name__, *([name, _plain(value)] for name, value in fields if name != "ctx")]
    return [_plain(it) for it in node] if isinstance(node, list) else repr(node)
