"""What all networks have in common: the last layer, and how weights are put into them."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Logits(nn.Linear):
    """The last layer, in float32 whatever comes in and whatever precision the others have.

    Logits in bfloat16 would have 8 significant bits: the two largest would often tie, and a tie goes to the class with
    the lower number. The layer is too small for its precision to cost time.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts weights into a network, which must be its own: as `load_state_dict`, for names and values alone.

    A state dict also says which version of its class a module has; a file of weights does not, and some modules ask.
    """
    state = OrderedDict(weights)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state)
