"""The errors that a user can fix, and nothing else.

    HarnessError                 every message says where, what, and the next step
    ├── StudyError               a study file or a request does not make sense (bad key, unknown change, ...)
    ├── DataError                images are missing, unreadable or inconsistent
    ├── TrackingError            the tracking database or server cannot be used
    ├── StoreError               the folder of cells cannot be read or written
    │   └── DamagedError         a file in it holds what no harness writes
    ├── OutputError              a file or folder that was asked for cannot be written
    ├── ResultsError             the results do not support what was asked of them
    │   └── UnpairedSeedsError   a seed has a number on one side of a comparison only
    └── CellError                one cell could not be trained; it is recorded, the others go on
        ├── DivergedError        the loss is not finite
        ├── OutOfMemoryError     the device has too little memory
        └── DeviceLostError      the process can use its device no more, and has to end

Mistakes of our own are `assert`s and keep their traceback; they do not belong here. The command line prints a
HarnessError without a traceback and exits with 2.
"""

from collections.abc import Sequence


class HarnessError(Exception):
    """Base of every error that the user can fix from its message alone."""


class StudyError(HarnessError):
    """A study, a change or a request that does not make sense; holds every problem found, not the first one.

    Args:
        problems: one complete sentence each: where, what, what was expected, the next step.
    """

    def __init__(self, *problems: str) -> None:
        self.problems: Sequence[str] = problems
        super().__init__("\n".join(problems))


class DataError(HarnessError):
    """Images are missing, unreadable or inconsistent."""


class TrackingError(HarnessError):
    """The tracking database or server cannot be used."""


class UnreachableError(TrackingError):
    """The tracking database or server does not answer; it may do so later."""


class StoreError(HarnessError):
    """The folder of cells cannot be read or written."""


class DamagedError(StoreError):
    """A file of the folder of cells holds what no harness, of this version or another, writes."""


class OutputError(HarnessError):
    """A file or folder that was asked for (an export, a report) cannot be written."""


class ResultsError(HarnessError):
    """The results do not support what was asked of them."""


class NoValueError(ResultsError):
    """No combination of a search has a value yet."""


class UnpairedSeedsError(ResultsError):
    """A seed has a number on one side of a comparison only; the message lists the seeds and the missing side."""


class CellError(HarnessError):
    """One cell could not be trained; the runner records it and goes on with the others."""


class DivergedError(CellError):
    """The loss is not finite."""


class DeviceLostError(CellError):
    """The process can use its device no more: every later cell in it would fail. Its cell is tried again in another."""


class OutOfMemoryError(CellError):
    """The device has too little memory for this cell."""
