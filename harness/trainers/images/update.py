"""From gradients to new weights: clipping, the optimizer at the learning rate of the step, moving averages.

What must work in a CUDA graph reads its step from a tensor on the device, which `seek` sets; on a CPU, and with an
optimizer that no graph can hold, rates are numbers of the host.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.trainers.images.arithmetic import Replica
from harness.trainers.images.rates import Rates, kept_share


class Averages:
    """Exponential moving averages of all that changes in a network: trained weights, and statistics.

    Args:
        decay: see `settings.Training`.
        num_steps: of the whole training.
    """

    def __init__(self, network: nn.Module, decay: float, num_steps: int) -> None:
        self.decay = decay
        frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
        self._live = {
            name: value
            for name, value in network.state_dict().items()
            if value.is_floating_point() and name not in frozen
        }
        self.values = {name: value.clone() for name, value in self._live.items()}
        taken = [1 - kept_share(decay, step) for step in range(num_steps)]
        self._taken = torch.tensor(taken, dtype=torch.float32).to(next(network.parameters()).device)

    @torch.no_grad()
    def take(self, place: Tensor) -> None:
        """The network's share of this step. Args: place: int64 (1,), the step."""
        share = self._taken.index_select(0, place)[0]
        for name, average in self.values.items():
            average.lerp_(self._live[name], share)

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.values[name].copy_(value)


class Update:
    """Makes new weights of gradients.

    Attributes:
        optimizer: its one group holds the learning rate, as a tensor where a graph may hold the step.
        rates: the learning rate of each step.
        gradient_clip: the largest norm of all gradients together, or None.
        averages: or None.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rates: Rates,
        *,
        gradient_clip: float | None,
        averages: Averages | None,
        device: torch.device,
    ) -> None:
        self.optimizer, self.rates, self.gradient_clip, self.averages = optimizer, rates, gradient_clip, averages
        self._is_constant = rates.is_constant
        self._table: Tensor | None = None
        if not self._is_constant and isinstance(self._group["lr"], Tensor):
            self._table = torch.tensor([rates.at(step) for step in range(rates.num_steps)]).to(device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._counts = self._table is not None or averages is not None

    @property
    def _group(self) -> dict[str, Any]:
        (group,) = self.optimizer.param_groups  # another dict and another rate after a state was loaded
        return group

    def seek(self, step: int) -> None:
        """Makes an optimizer step, counted from 0 over all epochs, the next one."""
        self._place.fill_(step)

    def __call__(self, step: int) -> None:
        """One optimizer step. Args: step: which one; read only where the rate is a number of the host."""
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._group["params"], self.gradient_clip)
        if self._table is not None:
            self._group["lr"].copy_(self._table.index_select(0, self._place)[0])
        elif not self._is_constant:
            self._group["lr"] = self.rates.at(step)
        self.optimizer.step()
        if self.averages is not None:
            self.averages.take(self._place)
        if self._counts:
            self._place.add_(1)

    def tensors(self) -> list[Tensor]:
        """All that a step changes, but the weights and the optimizer's state."""
        rate = self._group["lr"]
        averages = self.averages.values.values() if self.averages else ()
        return [self._place, *averages, *([rate] if isinstance(rate, Tensor) else [])]

    def kept(self, network: nn.Module) -> dict[str, Tensor]:
        """The state dict that is measured and kept: the network's own, or that of its averages."""
        return network.state_dict() | (self.averages.values if self.averages else {})

    @contextmanager
    def measured(self, replica: Replica) -> Iterator[None]:
        """Within, the replica has the weights that are measured."""
        if self.averages is None:
            yield
            return
        live = {name: value.clone() for name, value in replica.master.state_dict().items()}
        replica.load(self.kept(replica.master))
        try:
            yield
        finally:
            replica.load(live)
