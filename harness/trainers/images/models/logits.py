"""The last layer of every network that is built here."""

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
