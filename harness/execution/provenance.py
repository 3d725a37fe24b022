"""Where a number comes from: the commit, whether it was dirty, the library versions, the command."""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.urls import masked

LIBRARIES = ("harness", "torch", "torchvision", "numpy", "mlflow", "optuna", "pandas", "scipy")
COMPUTING = ("harness", "torch", "numpy")  # of these, what numbers depend on: the same on every machine of a cluster
DIFF_LIMIT = 200_000  # characters; a larger diff is cut, and says so
NOTIFY = "--notify"  # what follows it is never kept: addresses that are called are secrets
DIFF_VARIABLE = "HARNESS_DIFF"  # 0: how the checkout differs from its commit is not kept
_LONGEST_KEY = 10_000
_KEY_BLOCK = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_SECRETS = re.compile(  # `api_key: "..."`, `"password": '...'`, `TOKEN = ...`, whatever is around the name
    r"((?:passwor[dt]|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)\w{0,40}"
    r"[\"']?\s*(?::|=|=>|:=)\s*)(?:\"[^\"]*\"|'[^']*'|[^\s\"',;)}\]]{8,})",
    re.IGNORECASE,
)
_KNOWN_TOKENS = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|hf_\w{20,}|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|"
    r"A(?:KIA|SIA)[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+)"
)


def provenance(command: str, *, folder: Path | None = None) -> dict[str, object]:
    """Plain values for a cell's journal.

    `commit` is that of the git checkout around the current folder (the user's experiment), or empty outside of one;
    `dirty` says whether tracked files differ from it, and `diff` how.
    """
    folder = folder or Path.cwd()
    commit = _git(folder, "rev-parse", "HEAD").strip()
    diff = _git(folder, "diff", "HEAD") if commit else ""
    return {
        "commit": commit,
        "dirty": bool(diff),
        "diff": kept_diff(diff) if os.environ.get(DIFF_VARIABLE) != "0" else "",
        "versions": dict(library_versions()),
        "host": platform.node(),
        "command": command,
    }


def kept_diff(diff: str) -> str:
    """A diff as it may be kept and delivered: secrets masked, by their looks, and not too long."""
    diff = _KEY_BLOCK.sub(r"\1 ***", diff[: DIFF_LIMIT + _LONGEST_KEY])  # so that the cut splits no key
    lines = [_SECRETS.sub(r"\1***", masked(line)) for line in diff.split("\n")]
    diff = "\n".join(_KNOWN_TOKENS.sub("***", line) for line in lines)
    return diff if len(diff) <= DIFF_LIMIT else diff[:DIFF_LIMIT] + f"\n... cut after {DIFF_LIMIT} characters\n"


@cache  # a loop asks with each proposal
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
    """The command as the user typed it, quoted for a shell; passwords in URLs are masked, because it is kept, and all
    of the address or command that is to be notified."""
    words = list(map(_without_password, sys.argv[1:]))
    for index, word in enumerate(words):
        if word == NOTIFY and index + 1 < len(words):
            words[index + 1] = "***"
        elif word.startswith(f"{NOTIFY}="):
            words[index] = f"{NOTIFY}=***"
    return shlex.join(["harness", *words])


def _without_password(argument: str) -> str:
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{name}{equals}{masked(value)}"


def _git(folder: Path, *arguments: str) -> str:
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-c", "diff.autoRefreshIndex=false", *arguments]  # else `git diff` writes the index all the same
    try:
        done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""
