"""How many workers a device has room for, by what the first cells were seen to take. Decides; measures nothing.

A few workers start at once, for starting takes as long as a small cell trains. As soon as the first of them has
validated, it is known what training takes; from then on as many train as fit, with room to spare. A cell that takes
more than those before it may run out of memory all the same: it is tried once more, alone (`runner.py`).
"""

from harness.trainers.trainer import DeviceMemory

AT_FIRST = 4  # workers, before anything is known
SPARE = 0.1  # of the memory: fragments, and cells that take more than those before
CONTEXT_BYTES = 1_000_000_000  # of a process besides its tensors: .6 GB on an H200 (`doctor`), and libraries' own


class Room:
    """One device.

    Args:
        most: workers, whatever fits.

    Attributes:
        workers: how many may train now.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, int] = {}  # by worker, when it was heard last
        self._peak = 0
        self.workers = min(most, AT_FIRST)

    def note(self, worker: int, memory: DeviceMemory, workers: int = 1) -> None:
        """What a worker sees while it trains.

        What other programs hold is what is neither free nor ours, so it counts; it is asked anew each time.

        Args:
            worker: any number that is its own.
            workers: of ours on the device, heard or not: each has a context.
        """
        self._held[worker] = memory.held_bytes
        self._peak = max(self._peak, memory.peak_bytes)
        taken = sum(self._held.values()) + max(workers, len(self._held)) * CONTEXT_BYTES
        ours = min(memory.total_bytes, memory.free_bytes + taken)
        fitting = int(ours * (1 - SPARE)) // (self._peak + CONTEXT_BYTES)
        self.workers = max(1, min(self._most, fitting))

    def forget(self, worker: int) -> None:
        """It has ended, and its memory is free."""
        self._held.pop(worker, None)
