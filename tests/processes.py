"""Looks at other processes, which may end while one looks: a file below /proc then vanishes, or can no more be read."""

import time
from collections.abc import Iterable
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_dead(pids: Iterable[int], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while living := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"{living} still run"
        time.sleep(0.05)


def environment_of(pid: int) -> str:
    """Of a process, as it was started; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
