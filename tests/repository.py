"""A tiny git repository with training of its own, for changes that are code; and what shows that nobody touched it."""

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

from own import write_study

CODE = """
import harness
import mathematics
from evaluation import evaluate

def train(run: harness.Run) -> None:
    s = run.settings
    rate = s.rate


    width = 8


    score = 0.0


    for step in range(1, s.steps + 1):
        score = mathematics.advance(score, run.seed / 10, rate, width, False)


        run.log(step, **{"val/score": score})
    run.finish(**{"test/score": evaluate(score)})
"""
EVALUATION = """
def evaluate(score):
    return score / 10
"""


class TinyRepository:
    """A repository in a folder, whose `own.yaml` is a study of the code in it.

    Commits leave the working tree where it was: on `main`, at the first one.
    """

    def __init__(self, folder: Path, kind: str = "function", **study: Any) -> None:
        self.folder, self.kind = folder, kind
        self.study(**study)
        (folder / "evaluation.py").write_text(EVALUATION)
        (folder / "README.md").write_text("a study\n")
        self.git("init", "-q", "-b", "main")
        (folder / ".git" / "info" / "exclude").write_text("mlruns\n")
        self.base = self._committed("begin")

    def study(self, **study: Any) -> Path:
        """Writes the study anew; the path of its file."""
        return write_study(self.folder, self.kind, **({"function": CODE, "changes": [], **study}))

    def git(self, *arguments: str) -> str:
        known = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        who = {
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            cwd=self.folder,
            env=known | who | {"GIT_CONFIG_GLOBAL": "/dev/null"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(
        self,
        message: str,
        edits: Mapping[str, tuple[str, str] | list[tuple[str, str]] | str | None],
        *,
        onto: str = "main",
        branch: str = "",
    ) -> str:
        """A commit with edits of files: (old, new) texts or a list of them, a whole text, or None to delete.

        Args:
            onto: what it stands on. branch: that it makes or moves; without one nothing names the commit.

        Returns:
            The whole hash.
        """
        before = self.git("rev-parse", "--abbrev-ref", "HEAD").strip()
        self.git("checkout", "-q", "--detach", onto)
        for name, edit in edits.items():
            file = self.folder / name
            if edit is None:
                file.unlink()
            elif isinstance(edit, str):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(dedent(edit))
            else:
                for old, new in edit if isinstance(edit, list) else [edit]:
                    assert file.read_text().count(old) == 1, (name, old)
                    file.write_text(file.read_text().replace(old, new))
        made = self._committed(message)
        if branch:
            self.git("branch", "-q", "-f", branch, made)
        self.git("checkout", "-q", before)
        return made

    def _committed(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def checksums(self) -> dict[str, str]:
        return checksums(self.folder)


def checksums(folder: Path, *, objects: bool = True, folders: bool = False) -> dict[str, str]:
    """Every file of a folder, those of git's own among them: content, mode and time of change.

    Args:
        objects: with git's folder of objects, to which new commits add some.
        folders: with each folder's time of change, which tells of a file that came and went.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if folders and path.is_dir():
            found[f"{name}/"] = str(path.stat().st_mtime_ns)
        if path.is_file() and "mlruns" not in path.parts and (objects or not name.startswith(".git/objects/")):
            state = path.stat()
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = f"{content} {state.st_mode:o} {state.st_mtime_ns}"
    return found


RATE = {"training.py": ("rate = s.rate", "rate = 2 * s.rate")}
WIDTH = {"training.py": ("width = 8", "width = 16")}
START = {"training.py": ("score = 0.0", "score = 1.0")}
OTHER_START = {"training.py": ("score = 0.0", "score = 2.0")}
