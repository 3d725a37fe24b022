"""docker-compose.yml as plain values, and its services as plain processes: for machines without a container engine."""

import functools
import os
import re
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.study.yaml_file import read_yaml

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.yml"


@functools.cache
def compose() -> dict[str, Any]:
    """The file with its anchors resolved; a key that stands twice is an error."""
    tree = read_yaml(FILE)
    assert isinstance(tree, dict)
    return tree


def service(name: str) -> dict[str, Any]:
    found = compose()["services"][name]
    assert isinstance(found, dict)
    return found


def command(name: str, replaced: Mapping[str, str]) -> list[str]:
    """The command of a service as it would run here: this environment's programs, other addresses and folders."""
    return _here(service(name)["command"], replaced)


def health_check(name: str, replaced: Mapping[str, str]) -> bool:
    """Whether the service's own health check, run here, finds it healthy in the time that it is given."""
    check = service(name)["healthcheck"]
    kind, *arguments = check["test"]
    assert kind == "CMD"
    options = {"capture_output": True, "env": environment(name, replaced), "timeout": int(check["timeout"].rstrip("s"))}
    try:
        return subprocess.run(_here(arguments, replaced), **options).returncode == 0
    except subprocess.TimeoutExpired:  # Docker calls that unhealthy, too
        return False


def environment(name: str, replaced: Mapping[str, str]) -> dict[str, str]:
    """This process's variables with those of the service; without what this process may have set of the same kind."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "HARNESS_", "PG"))}
    given = service(name).get("environment", {})
    return ours | {key: _replace(str(value), replaced) for key, value in given.items()}


def _here(arguments: Sequence[str], replaced: Mapping[str, str]) -> list[str]:
    program, *rest = (_replace(argument, replaced) for argument in arguments)
    found = Path(sysconfig.get_path("scripts")) / program
    return [str(found) if found.exists() else program, *rest]


def _replace(text: str, replaced: Mapping[str, str]) -> str:
    text = re.sub(r"\$\{POSTGRES_PASSWORD:\?[^}]*\}", "from the environment", text)
    for old, new in replaced.items():
        text = text.replace(old, new)
    return text
