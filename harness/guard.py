"""Ends processes when whoever started them is gone, however it died: a `Guard` here, and the process behind it.

That process, `python guard.py SECONDS`, is told of groups of processes on standard input, one a line: `GROUP` to watch
one, `-GROUP` to forget one that has ended, for its number may be somebody else's by then. The input ends when its
writer dies, by SIGKILL too, which no process can act upon itself; then the groups are asked to end, and killed after so
many seconds. `over` says that nothing is to be ended any more. A group is all that it can find: a process that has
begun a session of its own is out of reach. Imports nothing that takes time, so that it is there at once.
"""

import contextlib
import os
import signal
import sys
import time

OVER = "over"


class Guard:
    """Ends groups of processes when this process dies, and itself with it. Holds nothing of this process open.

    Args:
        seconds: between asking and killing; 0 leaves no time to do anything.
    """

    def __init__(self, seconds: float) -> None:
        import subprocess

        self._process = subprocess.Popen(
            [sys.executable, "-P", "-S", __file__, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C, and a signal to the group of this process, do not reach it
        )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def watch(self, group: int) -> None:
        self._tell(str(group))

    def forget(self, group: int) -> None:
        self._tell(f"-{group}")

    def close(self) -> None:
        """Ends it, and nothing else."""
        self._tell(OVER)
        self.leave()

    def leave(self) -> None:
        """As if this process died now: ends what it watches, and itself."""
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            self._process.stdin.write(f"{line}\n".encode())


def main(seconds: float) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a scheduler tells every process of a job, and some take their time
    groups = set()
    for line in sys.stdin:
        if line.strip() == OVER:
            return
        group = int(line)
        if group < 0:
            groups.discard(-group)
        else:
            groups.add(group)
    for group in groups:
        _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(_signal(group, 0) for group in groups):
        time.sleep(0.05)
    for group in groups:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Whether it was there to get the signal."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main(float(sys.argv[1]))
