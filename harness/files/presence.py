"""Whether file locks hold between the machines that share a folder: asked of those who work in it.

Everyone who is present keeps a file there, holds its lock, and writes into it every few seconds. Who comes tries the
locks of the others. One that is free belongs to somebody who has died; but if its file is still written to, its owner
lives on a machine whose locks this one does not see.
"""

import contextlib
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

BEAT_SECONDS = 2.0
_BEATS = 3.0  # that are waited for


@contextlib.contextmanager
def present(folder: Path, *, beat_seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Is there for others to try, while the block runs.

    Raises:
        OSError: nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, is_over = folder / f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}", threading.Event()
    coming = path.with_name(f".{path.name}")  # held before anyone can try it
    with coming.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        coming.rename(path)
        beating = threading.Thread(target=_beat, args=(file, is_over, beat_seconds), daemon=True)
        beating.start()
        try:
            yield
        finally:
            is_over.set()
            beating.join()
            path.unlink(missing_ok=True)


def _beat(file: IO[str], is_over: threading.Event, beat_seconds: float) -> None:
    with contextlib.suppress(OSError):  # a full disk is others' matter; then this one looks dead, and nothing is lost
        while True:
            file.seek(0)
            file.write(f"{time.time():.3f}")
            file.flush()
            os.fsync(file.fileno())  # to be seen on other machines
            if is_over.wait(beat_seconds):
                return


def unseen_by_locks(folder: Path, *, beat_seconds: float = BEAT_SECONDS) -> str:
    """Who lives, although this process got its lock: the name of its file, which begins with its machine's; or nothing.

    Waits for a few beats where somebody has died, and removes what is left of them.
    """
    with contextlib.ExitStack() as holding:
        before = {}
        for path in sorted(folder.glob("[!.]*")) if folder.is_dir() else ():
            with contextlib.suppress(OSError):  # held, as it should be; or gone meanwhile
                file = holding.enter_context(path.open("r+"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                before[path] = path.read_text()
        if before:
            time.sleep(_BEATS * beat_seconds)
        for path, content in before.items():
            with contextlib.suppress(FileNotFoundError):
                if path.read_text() != content:
                    return path.name
                path.unlink()
    return ""
