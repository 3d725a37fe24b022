import itertools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import StudyError
from harness.trainers.images.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    Linear,
    Pool,
    ReLU,
    convnet_layers,
    layer_table,
    num_macs,
    num_parameters,
    output_shape,
)

PLAIN = {
    "kernel_size": 5,
    "pooling": "max",
    "batch_norm": False,
    "batch_norm_fc": False,
    "dropout": 0.0,
    "hidden_units": 64,
}
BASELINE = {"filters": (32, 64, 128), **PLAIN}
MODEL_1 = {**BASELINE, "filters": (64, 128, 256), "batch_norm": True, "batch_norm_fc": True, "dropout": 0.2}
MODEL_2 = {**BASELINE, "filters": (128, 256, 512), "batch_norm": True, "dropout": 0.6}
IMAGE = (3, 32, 32)


def module(layer, shape):
    """The torch module that a layer describes; `shape` is that of its input."""
    match layer:
        case Conv():
            return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        case Pool():
            return {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}[layer.kind](layer.kernel_size)
        case BatchNorm():
            return (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(layer.num_features)
        case Linear():
            return nn.Linear(layer.in_features, layer.out_features)
        case Dropout():
            return nn.Dropout(layer.probability)
        case ReLU():
            return nn.ReLU()
        case Activation(name):
            return {"gelu": nn.GELU, "tanh": nn.Tanh}[name]()
        case Flatten():
            return nn.Flatten()


def build(layers, image_shape):
    shapes = [image_shape, *(row.output_shape for row in layer_table(layers, image_shape))]
    return nn.Sequential(*map(module, layers, shapes)).eval()


def measure(model, image_shape):
    """(output shape, parameters, multiply-accumulates) of each layer of one forward pass, by hooks on the modules."""
    measured = []

    def hook(layer, inputs, output):
        weights_per_output = layer.weight[0].numel() if isinstance(layer, nn.Conv2d | nn.Linear) else 0
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        measured.append((tuple(output.shape[1:]), parameters, output.numel() * weights_per_output))

    handles = [layer.register_forward_hook(hook) for layer in model]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *image_shape))
    for handle in handles:
        handle.remove()
    return measured, counter.get_total_flops()


def variants():
    for kernel_size, pooling, batch_norm, batch_norm_fc in itertools.product(
        (3, 7), ("max", "avg", "stride"), (False, True), (False, True)
    ):
        yield {
            "filters": (4, 6),
            "kernel_size": kernel_size,
            "pooling": pooling,
            "batch_norm": batch_norm,
            "batch_norm_fc": batch_norm_fc,
            "dropout": 0.5 if batch_norm else 0.0,
            "hidden_units": 5,
        }


@pytest.mark.parametrize(
    ("settings", "image_size", "num_classes"),
    [
        *((settings, 32, 10) for settings in (BASELINE, MODEL_1, MODEL_2)),
        *((settings, 21, 3) for settings in variants()),  # An odd size: pooling rounds down, striding up.
        (BASELINE | {"activation": "gelu"}, 32, 10),
        (MODEL_1 | {"activation": "tanh", "residual": True}, 32, 10),
    ],
)
def test_shapes_parameters_and_macs_of_each_layer_equal_torchs(settings, image_size, num_classes):
    shape = (3, image_size, image_size)
    layers = convnet_layers(**settings, image_size=image_size, num_classes=num_classes)

    rows = layer_table(layers, shape)
    measured, flops = measure(build(layers, shape), shape)

    assert [(row.output_shape, row.parameters, row.macs) for row in rows] == measured
    assert rows[-1].output_shape == (num_classes,)
    # torch's own counter, which counts a multiplication and an addition separately.
    assert 2 * sum(row.macs for row in rows) == flops


def test_the_baseline_has_390410_parameters_not_the_reports_148810():
    rows = layer_table(convnet_layers(**BASELINE), IMAGE)

    assert [row.parameters for row in rows if row.parameters] == [2432, 51_264, 204_928, 131_136, 650]
    assert sum(row.parameters for row in rows) == 390_410
    # By hand: 32*32*32*75, 16*16*64*800, 8*8*128*1600, 2048*64, 64*10.
    assert [row.macs for row in rows if row.macs] == [2_457_600, 13_107_200, 13_107_200, 131_072, 640]


def test_the_table_of_the_baseline_names_and_places_each_layer():
    rows = layer_table(convnet_layers(**BASELINE), IMAGE)

    block = ["conv", "relu", "max-pool"]
    assert [row.layer for row in rows] == [
        *(f"{kind}{number}" for number in (1, 2, 3) for kind in block),
        *("flatten1", "linear1", "relu4", "linear2"),
    ]
    assert [(row.kernel, row.stride) for row in rows[:3]] == [(5, 1), (None, None), (2, 2)]
    assert [row.receptive_field for row in rows[:9]] == [5, 5, 6, 14, 14, 16, 32, 32, 36]
    assert [row.total_stride for row in rows[:9]] == [1, 1, 2, 2, 2, 4, 4, 4, 8]
    assert {(row.receptive_field, row.total_stride, row.kernel) for row in rows[9:]} == {(None, None, None)}


def test_layers_of_a_block_and_of_the_head_come_in_the_reports_order():
    layers = convnet_layers(**MODEL_1 | {"filters": (64,)})

    assert layers == (
        Conv(3, 64, 5, stride=1, padding=2),
        ReLU(),
        Pool("max", 2),
        BatchNorm(64),
        Flatten(),
        Linear(64 * 16 * 16, 64),
        ReLU(),
        BatchNorm(64),
        Dropout(0.2),
        Linear(64, 10),
    )


def test_average_pooling_is_described_as_such():
    layers = convnet_layers(**BASELINE | {"pooling": "avg"})

    assert [row.layer for row in layer_table(layers, IMAGE)][2:9:3] == ["avg-pool1", "avg-pool2", "avg-pool3"]


def test_striding_replaces_the_pooling():
    layers = convnet_layers(**BASELINE | {"filters": (8,), "pooling": "stride"})

    assert layers[:3] == (Conv(3, 8, 5, stride=2, padding=2), ReLU(), Flatten())


def test_an_even_kernel_is_refused():
    with pytest.raises(StudyError, match="kernel 4 with 'same' padding"):
        convnet_layers(**BASELINE | {"kernel_size": 4})


def test_too_many_blocks_for_the_image_are_refused_with_the_layer():
    with pytest.raises(
        StudyError, match=r"3 blocks of filters do not fit on images of 4x4 pixels; .*max-pool3 on 128x1x1"
    ):
        convnet_layers(**BASELINE, image_size=4)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Conv(3, 8, 3), ReLU(), Conv(3, 8, 3)], r"conv2 on 8x30x30: Conv\(in_channels=3, .* does not take that shape"),
        ([Linear(3, 8)], "linear1 on 3x32x32: Linear"),
        ([Flatten(), Linear(5, 8)], "linear1 on 3072: Linear"),
        ([BatchNorm(4)], "batch-norm1 on 3x32x32: BatchNorm"),
        ([Flatten(), Pool("avg", 2)], "avg-pool1 on 3072: Pool"),
        ([Conv(3, 8, 3, stride=0)], "conv1 on 3x32x32: stride must be"),
    ],
)
def test_a_layer_that_does_not_fit_is_named_with_what_reaches_it(layers, message):
    with pytest.raises(StudyError, match=message):
        layer_table(layers, IMAGE)


def test_heights_and_widths_may_differ():
    layers = [Conv(3, 4, 3, stride=2), Pool("max", 2), Flatten()]

    measured, _ = measure(build(layers, (3, 20, 11)), (3, 20, 11))

    assert [row.output_shape for row in layer_table(layers, (3, 20, 11))] == [shape for shape, _, _ in measured]


def test_no_layers_change_nothing():
    assert layer_table([], IMAGE) == ()
    assert output_shape([], IMAGE) == IMAGE


def test_counts_of_one_layer_need_no_table():
    # (3*3*2 + 1) * 5; 4*4 outputs of 5 channels, 18 products each.
    assert num_parameters(Conv(2, 5, 3)) == 95
    assert num_macs(Conv(2, 5, 3), (5, 4, 4)) == 1440
