"""New commits in a repository, and at the end one new branch: objects are added, and nothing else is written.

No command is called that knows the working tree, the index, the stash or another reference: trees are made in an index
of their own in a temporary folder. Whoever dies on the way leaves objects that nothing names, which git collects.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StudyError
from harness.files.scratch import scratch
from harness.trainers.code import ClashError, Committed, Edited, FileEdits, edits_of
from harness.trainers.git import GitError, Repository, run_git
from harness.trainers.trainer import Edit

Content = tuple[bytes, bool] | None  # of a file, with whether it may be executed; None where there is none


@dataclass(frozen=True)
class Step:
    """One commit to be made.

    Attributes:
        edit: what it does. like: a commit whose author and dates it takes; empty for those of whoever runs this.
    """

    edit: Edit
    message: str
    like: str = ""


def check_branch(repository: Repository, name: str) -> str:
    """The commit that the branch of this name has; empty where there is none yet.

    Raises:
        StudyError: it is no name of a branch.
    """
    try:
        run_git(repository.folder, "check-ref-format", "--branch", name)
    except GitError:
        raise StudyError(f"--branch {name!r}: is no name of a branch.") from None
    try:
        return (
            run_git(repository.folder, "rev-parse", "--verify", "-q", f"refs/heads/{name}^{{commit}}").decode().strip()
        )
    except GitError:
        return ""


def write_commits(folder: Path, base: str, steps: Sequence[Step], *, home: Path) -> tuple[str, list[str]]:
    """Commits on top of `base`, one a step, which no reference names yet.

    A file that training does not read may not merge; it stays as it was, and is named.

    Args:
        folder: in the repository. home: that patches are relative to.

    Returns:
        The last one's hash, and a sentence for each file that stays as it was.
    """
    top = Repository(Repository(folder).top)
    below = Committed(top.folder, top, top.commit(base))
    found = [edits_of(it.edit, below, top, home) for it in steps]
    notes: dict[str, None] = {}
    parent = below.commit
    with scratch() as own:
        index = {"GIT_INDEX_FILE": str(own / "index")}
        run_git(top.folder, "read-tree", parent, more=index)
        for count, step in enumerate(steps, start=1):
            files = dict(_files_after(Edited(below, found[:count], "the base"), found[count - 1], notes))
            listed = b"".join(_index_line(top, path, content) for path, content in files.items())
            run_git(top.folder, "update-index", "-z", "--index-info", stdin=listed, more=index)
            tree = run_git(top.folder, "write-tree", more=index).decode().strip()
            command = ["commit-tree", tree, "-p", parent, "-F", "-"]
            made = run_git(top.folder, *command, stdin=step.message.encode(), more=_people(top, step.like))
            parent = made.decode().strip()
    return parent, list(notes)


def write_branch(repository: Repository, name: str, commit: str) -> None:
    """Names a commit by a new branch, in one step.

    Raises:
        StudyError: another process made a branch of this name meanwhile.
    """
    try:
        run_git(repository.folder, "update-ref", "-m", "harness prune", f"refs/heads/{name}", commit, "")
    except GitError as error:
        raise StudyError(f"--branch {name}: cannot be made ({error}).") from None


def write_patches(repository: Repository, base: str, commit: str, folder: Path) -> list[Path]:
    """The commits after `base` as a series of patches for `git am`, in a folder that is made."""
    command = ["format-patch", "-q", "--no-signature", "-o", str(folder.resolve()), f"{base}..{commit}"]
    run_git(repository.folder, *command)
    return sorted(folder.glob("*.patch"))


def _files_after(code: Edited, edits: FileEdits, notes: dict[str, None]) -> Iterator[tuple[str, Content]]:
    """What became of the files that the last edits touch."""
    for path in sorted(edits.names):
        try:
            yield path, (code.read(path), code.is_program(path)) if code.is_file(path) else None
        except ClashError as error:
            said = " and ".join(error.others) or "the base"
            why = f"{error.change}'s edit of it does not merge with {said}"
            notes[f"{path}: {why}; it was left out, for training does not read it."] = None


def _index_line(repository: Repository, path: str, content: Content) -> bytes:
    name = path.encode("utf-8", "surrogateescape")
    if content is None:
        return b"0 " + b"0" * len(repository.commit("HEAD")) + b"\t" + name + b"\0"
    oid = run_git(repository.folder, "hash-object", "-w", "--stdin", "--no-filters", stdin=content[0]).strip()
    return (b"100755 " if content[1] else b"100644 ") + oid + b"\t" + name + b"\0"


def _people(repository: Repository, like: str) -> Mapping[str, str]:
    """Author and dates of a commit, so that the same request makes the same commits; the committer is who runs this,
    where git knows a name, else the author."""
    if not like:
        return {}
    told = run_git(repository.folder, "log", "-1", "--format=%an%x00%ae%x00%ad%x00%cd", "--date=raw", like)
    name, email, authored, committed = told.decode("utf-8", "surrogateescape").rstrip("\n").split("\0")
    people = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email, "GIT_AUTHOR_DATE": authored}
    people |= {"GIT_COMMITTER_DATE": committed}
    try:
        run_git(repository.folder, "var", "GIT_COMMITTER_IDENT")
    except GitError:
        people |= {"GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": email}
    return people
