"""How optimizer steps are made: on a CUDA device replayed as one graph, where that gives the eager step's numbers.

A step of a small network is some hundred kernels of a few microseconds each: launching them one by one takes longer
than they run. A CUDA graph launches them at once. What a graph has captured it repeats on the same memory, so a step
reads and writes device tensors only: which batch comes next is one of them (`data.batches`), and no number of the host
is in it.

A capture is believed only after it was seen to work. From the same state, two eager steps and two replays are made;
every tensor of the state and the state of the random generator must be equal to the bit. Otherwise, or where capturing
fails, training goes on eagerly from the eager steps' state: a wrong capture costs speed, never a number.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Step = Callable[[], None]

WARM_UP_STEPS = 3  # libraries start, and the optimizer makes its state
CHECKED_STEPS = 2


class Steps:
    """Makes optimizer steps, eagerly or by replaying a graph.

    Args:
        step: makes one step. It must neither wait for the device nor depend on what changes on the host.
        state: all tensors that a step changes, whenever it is asked.
        eager_because: why no graph is tried; empty to try one.

    Attributes:
        mode: `eager` or `graph`: how steps are made now.
        reason: why they are eager; empty where they are not.
    """

    def __init__(
        self, step: Step, state: Callable[[], Iterable[Tensor]], *, device: torch.device, eager_because: str = ""
    ) -> None:
        self._eager, self._step, self._state, self._device = step, step, state, device
        self.mode = "eager"
        self.reason = eager_because or "too few steps in a row were made to try a graph"
        self._is_open, self._num_made = not eager_because, 0

    def make(self, most: int) -> int:
        """Makes one step, or the few of trying a graph.

        Args:
            most: steps that may be made, at least 1; the state that they need is on the device.

        Returns:
            How many were made.
        """
        if self._is_open and self._num_made >= WARM_UP_STEPS and most >= CHECKED_STEPS:
            self._is_open = False
            self._try_graph()
            return CHECKED_STEPS
        self._step()
        self._num_made += 1
        return 1

    def _try_graph(self) -> None:
        """Makes the checked steps, and keeps the graph if it made the same."""
        before = self._snapshot()
        for _ in range(CHECKED_STEPS):
            self._eager()
        expected = self._snapshot()
        self._restore(before)
        try:
            replay = capture(self._eager, self._device)
            self._restore(before)  # nothing ran, but the generator was advanced
            for _ in range(CHECKED_STEPS):
                replay()
            difference = self._difference(expected)
        except (RuntimeError, AssertionError) as error:  # out of memory, too: a graph keeps memory of its own
            difference = f"a graph could not be captured: {str(error).partition(chr(10))[0]}"
        if difference:
            self._restore(expected)
            self.reason = difference
        else:
            self._step, self.mode, self.reason = replay, "graph", ""

    def _snapshot(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in self._state()] + [torch.cuda.get_rng_state(self._device)]

    @torch.no_grad()
    def _restore(self, saved: list[Tensor]) -> None:
        for tensor, value in zip(self._state(), saved, strict=False):
            tensor.detach().copy_(value)
        torch.cuda.set_rng_state(saved[-1], self._device)

    def _difference(self, expected: list[Tensor]) -> str:
        """What is not as expected, in words; empty where all is. NaN equals NaN: who diverges does so in both."""
        *tensors, random_state = self._snapshot()
        if not torch.equal(random_state, expected[-1]):
            return "replaying a graph drew other random numbers than eager steps"
        pairs = zip(tensors, expected, strict=False)
        unequal = sum(not torch.equal(ours.nan_to_num(), theirs.nan_to_num()) for ours, theirs in pairs)
        return f"{unequal} of {len(tensors)} tensors differed after replaying a graph" if unequal else ""


def capture(step: Step, device: torch.device) -> Step:
    """The step as a CUDA graph; capturing runs nothing on the device.

    Raises:
        RuntimeError: the step cannot be captured, or there is no CUDA here.
    """
    graph = torch.cuda.CUDAGraph()
    # Of this thread alone: another one may allocate meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay
