"""Ends services when whoever started them is gone, however it died: `python -P guard.py`, beside `services.py`.

Groups of processes are named on standard input, one a line. The input ends when its writer dies, by SIGKILL too, which
no process can act upon itself; then the groups are asked to end, and killed after a while. `over` says that they have
ended. Imports nothing but the standard library, so that it is there at once.
"""

import contextlib
import os
import signal
import sys
import time

OVER = "over"
STOP_SECONDS = 5.0


def main() -> None:
    groups = []
    for line in sys.stdin:
        if line.strip() == OVER:
            return
        groups.append(int(line))
    for group in groups:
        _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and any(_signal(group, 0) for group in groups):
        time.sleep(0.05)
    for group in groups:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Whether it was there to get the signal."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main()
