"""The report's convolutional network.

Axes: N images, C channels, H rows, W columns.
"""

from collections.abc import Callable

from torch import Tensor, nn

from harness.errors import StudyError
from harness.trainers.images.models.logits import Logits
from harness.trainers.images.settings import ConvNet

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Block(nn.Module):
    """Convolution, activation, pooling [, batch normalization]: (N, C, H, W) to (N, C', H // 2, W // 2)."""

    def __init__(self, in_channels: int, out_channels: int, model: ConvNet) -> None:
        super().__init__()
        stride = 2 if model.pooling == "stride" else 1
        padding = model.kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, model.kernel_size, stride, padding)
        self.activation = ACTIVATIONS[model.activation]()
        pooling: dict[str, nn.Module] = {"max": nn.MaxPool2d(2), "avg": nn.AvgPool2d(2), "stride": nn.Identity()}
        self.pool = pooling[model.pooling]
        self.norm: nn.Module = nn.BatchNorm2d(out_channels) if model.batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if isinstance(self.pool, nn.MaxPool2d) and isinstance(self.activation, nn.ReLU):
            # max(relu(x)) is relu(max(x)) to the bit, the gradient too, and the ReLU sees a quarter of the values.
            return self.norm(self.activation(self.pool(x)))  # type: ignore[no-any-return]
        return self.norm(self.pool(self.activation(x)))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Convolution, activation [, batch normalization], added to the input: (N, C, H, W) to the same."""

    def __init__(self, channels: int, model: ConvNet) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, model.kernel_size, padding=model.kernel_size // 2)
        self.activation = ACTIVATIONS[model.activation]()
        self.norm: nn.Module = nn.BatchNorm2d(channels) if model.batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.activation(self.conv(x)))  # type: ignore[no-any-return]


class ConvolutionalNetwork(nn.Module):
    """The report's network: blocks, then a hidden fully connected layer, then one logit a class."""

    def __init__(self, model: ConvNet, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        channels = (3, *model.filters)
        blocks: list[nn.Module] = []
        for i in range(len(model.filters)):
            blocks += [Block(channels[i], channels[i + 1], model)]
            blocks += [Residual(channels[i + 1], model)] if model.residual else []
        self.blocks = nn.Sequential(*blocks)
        height, width = (_pooled(side, model) for side in image_size)
        self.hidden = nn.Linear(channels[-1] * height * width, model.hidden_units)
        self.activation = ACTIVATIONS[model.activation]()
        self.norm: nn.Module = nn.BatchNorm1d(model.hidden_units) if model.batch_norm_fc else nn.Identity()
        self.dropout: nn.Module = nn.Dropout(model.dropout) if model.dropout else nn.Identity()
        self.output = Logits(model.hidden_units, num_classes)
        if model.initialization != "default":
            _initialize(self, model.initialization)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x).permute(0, 2, 3, 1).flatten(1)  # by row, column, channel: in channels-last, a view
        x = self.dropout(self.norm(self.activation(self.hidden(x))))
        return self.output(x)  # type: ignore[no-any-return]


def _initialize(network: nn.Module, name: str) -> None:
    """Draws all weights anew, and sets biases to zero; see `settings.ConvNet`."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if name == "kaiming":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif name == "xavier":
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.orthogonal_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def _pooled(side: int, model: ConvNet) -> int:
    """Pixels that are left of a side after all blocks; pooling rounds down, a strided convolution up."""
    for _ in model.filters:
        side = (side + 1) // 2 if model.pooling == "stride" else side // 2
    if side == 0:
        raise StudyError(
            f"model.filters: {len(model.filters)} blocks halve the image {len(model.filters)} times and leave nothing; "
            "choose fewer blocks or larger images"
        )
    return side
