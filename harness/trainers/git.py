"""A git repository, as it is read: which files a commit holds, and what it does to them.

Only commands that look up objects are called: none of them touches the index, the working tree, a reference or the
folder of objects. Two versions of a file are merged by `git merge-file`, among files in a temporary folder.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from harness.errors import StudyError
from harness.files.scratch import scratch
from harness.texts import shortened

_LINK, _MODULE = "120000", "160000"  # modes of what is no file
_EXECUTABLE = "100755"
_TRAILER = re.compile(r"([A-Za-z][A-Za-z0-9-]*):\s*(.+)")
_REVERTS = re.compile(r"^This reverts commit ([0-9a-f]{7,64})", re.MULTILINE)


class Blob(NamedTuple):
    """A file's content as git keeps it. `mode`: six octal digits."""

    mode: str
    oid: str

    @property
    def is_file(self) -> bool:
        return self.mode not in (_LINK, _MODULE)

    @property
    def is_program(self) -> bool:
        return self.mode == _EXECUTABLE


class Touched(NamedTuple):
    """What lies between two commits for one file: its path and content in each, None where it is in one of them only.

    Where both are there and the paths differ, the file was renamed.
    """

    old: str | None
    new: str | None
    before: Blob | None
    after: Blob | None


class Logged(NamedTuple):
    """A commit in a history. `message`: whole; `subject` is its first line."""

    commit: str
    parents: tuple[str, ...]
    message: str

    @property
    def subject(self) -> str:
        return self.message.strip().partition("\n")[0].strip()

    @property
    def trailers(self) -> dict[str, str]:
        """`Key: value` lines of the message's last paragraph, keys in small letters; the last one of a key counts."""
        last = self.message.strip().rpartition("\n\n")[2] if "\n\n" in self.message.strip() else ""
        found = (_TRAILER.fullmatch(line.strip()) for line in last.splitlines())
        return {it[1].lower(): it[2].strip() for it in found if it}

    @property
    def reverts(self) -> str:
        """The commit that this one takes back, where git wrote its message; else empty."""
        found = _REVERTS.search(self.message)
        return found[1] if found else ""


@dataclass
class Repository:
    """The repository around a folder. Paths are relative to that folder, with slashes; what lies outside is not seen.

    Args:
        folder: somewhere in a working tree.

    Raises:
        StudyError: from every method: git is not installed, or the folder lies in no repository.
    """

    folder: Path
    _contents: dict[str, bytes] = field(default_factory=dict, repr=False)

    def commit(self, name: str) -> str:
        """The whole hash of the commit that a hash, its beginning, a tag or a branch names.

        Raises:
            StudyError: there is none, or more than one.
        """
        if not name.strip() or not name.isprintable():
            raise StudyError(f"{shortened(repr(name), 60)} names no commit.")
        said = self._git("cat-file", "--batch-check", stdin=f"{name}^{{commit}}\n".encode()).decode(errors="replace")
        oid, _, rest = said.strip().partition(" ")
        if rest.startswith("commit "):
            return oid
        why = "names more than one" if "ambiguous" in said else "is no commit"
        raise StudyError(
            f"{shortened(name, 60)!r} {why} of the repository {self.top}; `git log --oneline --all` lists them."
        )

    def parents(self, commit: str) -> list[str]:
        return self._lines("rev-list", "--parents", "--no-walk", commit)[0].split()[1:]

    def fork(self, first: str, second: str) -> str:
        """Where two commits' histories part. Raises StudyError where they have nothing in common."""
        found = self._lines("merge-base", first, second, fine=(0, 1))
        if not found:
            raise StudyError(f"{first[:10]} and {second[:10]} have no commit in common.")
        return found[0]

    def is_part(self, commit: str, tip: str) -> bool:
        """Whether the history of `tip` holds the commit."""
        return not self._lines("rev-list", "--max-count=1", commit, f"^{tip}")

    def is_branch(self, name: str) -> bool:
        return bool(self._lines("rev-parse", "--verify", "-q", f"refs/heads/{name}", fine=(0, 1)))

    def logged(self, commit: str) -> Logged:
        """One commit as it stands in a history."""
        return self._logged("--no-walk", commit)[0]

    def history(self, base: str, tip: str) -> list[Logged]:
        """What `tip` holds and `base` does not, the oldest first, each commit after its parents."""
        return self._logged("--reverse", "--topo-order", f"{base}..{tip}")

    def main_line(self, base: str, tip: str) -> list[Logged]:
        """The steps from `base` to `tip` by first parents, the oldest first; a merge among them, too.

        Raises:
            StudyError: this line does not pass `base`.
        """
        found = self._logged("--reverse", "--first-parent", f"{base}..{tip}")
        if found and found[0].parents[:1] != (base,):
            raise StudyError(
                f"the main line of {tip[:10]} (first parents) does not pass {base[:10]}, which a merge brought; name a "
                "commit of it: `git log --oneline --first-parent` lists them."
            )
        return found

    def _logged(self, *asked: str) -> list[Logged]:
        told = self._git("rev-list", "--no-commit-header", "--format=%H %P%n%B%x00", *asked)
        found = []
        for entry in filter(str.strip, told.decode(errors="replace").split("\0")):
            head, _, message = entry.lstrip("\n").partition("\n")
            commit, *parents = head.split()
            found.append(Logged(commit, tuple(parents), message))
        return found

    def touched(self, before: str | None, after: str) -> list[Touched]:
        """What differs between two commits; everything is new where there is none before."""
        ends = [before, after] if before else ["--root", after]
        options = ["-r", "-z", "-M", "--raw", "--no-abbrev", "--no-commit-id", "--no-ext-diff", "--no-relative"]
        fields = iter(self._git("diff-tree", *options, *ends).decode("utf-8", "surrogateescape").split("\0"))
        found = []
        for head in fields:
            if head:
                old_mode, new_mode, old_oid, new_oid, status = head.lstrip(":").split(" ")
                old = self._inside(next(fields))
                new = self._inside(next(fields)) if status[0] in "RC" else old
                is_old, is_new = status[0] not in "AC" and old is not None, status[0] != "D" and new is not None
                found.append(
                    Touched(
                        old if is_old else None,
                        new if is_new else None,
                        Blob(old_mode, old_oid) if is_old else None,
                        Blob(new_mode, new_oid) if is_new else None,
                    )
                )
        return [it for it in found if it.before or it.after]

    def files(self, commit: str) -> dict[str, Blob]:
        """Every file of a commit, by path."""
        listed = self._git("ls-tree", "-r", "-z", "--full-tree", commit).decode("utf-8", "surrogateescape")
        found = {}
        for line in filter(None, listed.split("\0")):
            (mode, _, oid), path = line.partition("\t")[0].split(" "), self._inside(line.partition("\t")[2])
            if path is not None:
                found[path] = Blob(mode, oid)
        return found

    def read(self, blob: Blob) -> bytes:
        if blob.oid not in self._contents:
            self._contents[blob.oid] = self._git("cat-file", "blob", blob.oid)
        return self._contents[blob.oid]

    @cached_property
    def top(self) -> Path:
        """The working tree's own folder."""
        try:
            return Path(self._run("rev-parse", "--show-toplevel").decode().rstrip("\n"))
        except GitError as error:
            raise StudyError(
                f"{self.folder}: lies in no git repository, so no commit or branch can be a change of its code "
                f"({error}). A patch needs none."
            ) from None

    @cached_property
    def below(self) -> str:
        """The folder inside the working tree, as it begins a path: empty, or with a slash at its end."""
        return self._run("rev-parse", "--show-prefix").decode().rstrip("\n") if self.top else ""

    def _inside(self, path: str) -> str | None:
        return path.removeprefix(self.below) if path.startswith(self.below) else None

    def _lines(self, *arguments: str, fine: Sequence[int] = (0,)) -> list[str]:
        return self._git(*arguments, fine=fine).decode(errors="replace").splitlines()

    def _git(self, *arguments: str, stdin: bytes = b"", fine: Sequence[int] = (0,)) -> bytes:
        assert self.top
        try:
            return self._run(*arguments, stdin=stdin, fine=fine)
        except GitError as error:
            raise StudyError(f"{self.top}: git {arguments[0]}: {error}") from None

    def _run(self, *arguments: str, stdin: bytes = b"", fine: Sequence[int] = (0,)) -> bytes:
        return run_git(self.folder, *arguments, stdin=stdin, fine=fine)


class GitError(Exception):
    """What git said."""


# No hook, no monitor; and no index is written: `git diff` refreshes it although locks are optional.
_SETTINGS = [
    part
    for setting in ("core.fsmonitor=false", "core.hooksPath=/dev/null", "diff.autoRefreshIndex=false")
    for part in ("-c", setting)
]


def run_git(
    folder: Path,
    *arguments: str,
    stdin: bytes = b"",
    fine: Sequence[int] = (0,),
    more: Mapping[str, str] = {},  # of the environment
) -> bytes:
    """What a command of git prints. Nothing that the caller's environment says of another repository counts, no hook
    runs, no lock is taken that is not needed, and nothing is fetched.

    Raises:
        StudyError: git is not installed. GitError: another exit code than a fine one.
    """
    try:
        done = subprocess.run(
            ["git", *_SETTINGS, *arguments],
            cwd=folder,
            env={**_environment(), **more},
            input=stdin,
            capture_output=True,
        )
    except FileNotFoundError:
        raise StudyError("git is not on $PATH; changes that are code need it.") from None
    if done.returncode not in fine:
        raise GitError(done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}")
    return done.stdout


def _environment() -> Mapping[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return ours | {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def merged(ours: bytes, before: bytes, theirs: bytes) -> bytes | None:
    """Both edits of one file, by git's three-way merge; None where they touch the same lines, or it is no text."""
    with scratch() as folder:
        for file, content in (("ours", ours), ("before", before), ("theirs", theirs)):
            (folder / file).write_bytes(content)
        try:
            return run_git(folder, "merge-file", "-q", "-p", "ours", "before", "theirs")
        except GitError:
            return None


def patched(patch: bytes, files: Mapping[str, bytes], below: str) -> dict[str, tuple[bytes, bool]] | str:
    """What a patch makes of files: each with whether it may be executed; or why it does not apply, in git's words.

    Args:
        files: by path relative to the folder that `below` names in the patch's paths; those that it edits, at least.
    """
    with scratch() as made:
        top = made.resolve()
        folder = top / below
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        only = [f"--include={below}*"] if below else []
        (top / ".patch").write_bytes(patch)
        try:
            command = ["--git-dir=/dev/null", "apply", "--whitespace=nowarn", *only, ".patch"]
            run_git(top, *command)
        except GitError as error:
            return " ".join(str(error).replace("error: ", "").split())
        (top / ".patch").unlink()
        found = [it for it in folder.rglob("*") if it.is_file() and not it.is_symlink()]
        return {it.relative_to(folder).as_posix(): (it.read_bytes(), os.access(it, os.X_OK)) for it in found}
