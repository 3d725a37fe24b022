"""Where a number comes from: the commit, whether it was dirty, the library versions, the command."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.urls import masked

LIBRARIES = ("harness", "torch", "torchvision", "numpy", "mlflow", "optuna", "pandas", "scipy")
DIFF_LIMIT = 200_000  # characters; a larger diff is cut, and says so


def provenance(command: str, *, folder: Path | None = None) -> dict[str, object]:
    """Plain values for a cell's journal.

    `commit` is that of the git checkout around the current folder (the user's experiment), or empty outside of one;
    `dirty` says whether tracked files differ from it, and `diff` how.
    """
    folder = folder or Path.cwd()
    commit = _git(folder, "rev-parse", "HEAD").strip()
    diff = _git(folder, "diff", "HEAD") if commit else ""
    if len(diff) > DIFF_LIMIT:
        diff = diff[:DIFF_LIMIT] + f"\n... cut after {DIFF_LIMIT} characters\n"
    return {
        "commit": commit,
        "dirty": bool(diff),
        "diff": diff,
        "versions": library_versions(),
        "host": platform.node(),
        "command": command,
    }


def library_versions(names: tuple[str, ...] = LIBRARIES) -> Mapping[str, str]:
    """Installed version by distribution name, Python's first; read from metadata, nothing is imported."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """The command as the user typed it, quoted for a shell; passwords in URLs are masked, because it is kept."""
    return shlex.join(["harness", *map(_without_password, sys.argv[1:])])


def _without_password(argument: str) -> str:
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{name}{equals}{masked(value)}"


def _git(folder: Path, *arguments: str) -> str:
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, env=quiet, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""
