"""How long commands take, from the shell's point of view: a new process, until its last line."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sample import Sample

HARNESS = (sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())")
PYTHON = (sys.executable, "-c", "pass")


def seconds_of(command: Sequence[str], *, store: Path | None = None) -> Sample:
    """Wall time of a command that must succeed.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    environment = os.environ | ({"HARNESS_STORE": str(store)} if store else {})
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[3:])}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return Sample(seconds, {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024})


def command_names() -> list[str]:
    """Every command that `harness --help` lists."""
    from harness.cli import COMMANDS

    return sorted(COMMANDS)
