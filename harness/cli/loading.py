"""A sign of life while a command loads its libraries, which takes seconds on a busy machine."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

SECONDS = 1.0  # without any output, after which it is given
SIGN = "loading libraries ..."
_ERASE = "\r\x1b[K"


@contextlib.contextmanager
def loading(seconds: float = SECONDS) -> Iterator[None]:
    """Says on a terminal that the command is loading, where it has written nothing for a while; the first thing that it
    writes takes the line's place. Nothing is said where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    sign = _Sign(sys.stderr)
    streams = [sign.watched(it) for it in (sys.stdout, sys.stderr)]
    timer = threading.Timer(seconds, sign.show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        sign.take_down()
        for restore in streams:
            restore()


class _Sign:
    """The line, shown at most once, and not after something was written."""

    def __init__(self, stream: TextIO) -> None:
        self._write, self._flush = stream.write, stream.flush
        self._lock = threading.RLock()
        self._is_over = self._is_shown = False

    def show(self) -> None:
        with self._lock:
            if not self._is_over:
                self._is_shown = True
                self._say(SIGN)

    def take_down(self) -> None:
        with self._lock:
            if self._is_shown and not self._is_over:
                self._say(_ERASE)
            self._is_over = True

    def watched(self, stream: TextIO) -> Callable[[], None]:
        """From now on what is written to this stream takes the line down; call the result to end that."""
        write = stream.write

        def written(text: str) -> Any:
            if not self._is_over:
                self.take_down()
            return write(text)

        stream.write = written  # type: ignore[method-assign]
        return lambda: stream.__dict__.pop("write", None) and None

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal has gone
            self._write(text)
            self._flush()
