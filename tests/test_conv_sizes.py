import itertools

import pytest
import torch
from torch import nn

from harness.errors import StudyError
from harness.trainers.images.conv_sizes import (
    ConvSize,
    Window,
    output_size,
    receptive_fields,
    same_padding,
    solve_size,
)

SMALL = {
    "input": range(1, 9),
    "kernel": range(1, 6),
    "padding": range(4),
    "stride": range(1, 5),
    "output": range(1, 10),
}


def positions(input, kernel, padding, stride):
    """Output size by the definition: how many places a window can start at."""
    return len(range(0, input + 2 * padding - kernel + 1, stride))


def solutions(unknown, known, exact):
    """By trying every value; 60 lies above every finite solution of SMALL."""
    found = []
    for value in range(0 if unknown == "padding" else 1, 60):
        sizes = {**known, unknown: value}
        output = sizes.pop("output")
        is_exact = (sizes["input"] + 2 * sizes["padding"] - sizes["kernel"]) % sizes["stride"] == 0
        if positions(**sizes) == output and (is_exact or not exact):
            found.append(value)
    return found


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("unknown", SMALL)
def test_every_small_equation_is_solved_as_by_trying_all_values(unknown, exact):
    names = [name for name in SMALL if name != unknown]
    seen = {"one": 0, "none": 0, "several": 0}
    for values in itertools.product(*(SMALL[name] for name in names)):
        known = dict(zip(names, values, strict=True))
        expected = solutions(unknown, known, exact)
        if len(expected) == 1:
            seen["one"] += 1
            solved = solve_size(**known, exact=exact)
            assert solved == ConvSize(**known, **{unknown: expected[0]})
            assert not (exact and solved.unused)
        else:
            seen["several" if expected else "none"] += 1
            with pytest.raises(StudyError, match="more than one" if expected else "^no |is larger than"):
                solve_size(**known, exact=exact)
    assert seen["one"] > 50
    # Every combination has an output if the kernel fits, and no combination has two.
    assert seen["none"] > 0
    assert (seen["several"] > 0) == ((unknown != "output" and not exact) or unknown == "stride")


@pytest.mark.parametrize(
    ("given", "solved"),
    [
        # Task 1(d), (e), (f): the report's own sizes.
        ({"input": 512, "padding": 0, "stride": 1, "output": 504}, ConvSize(512, 9, 0, 1, 504)),
        ({"input": 504, "kernel": 2, "padding": 0, "stride": 2}, ConvSize(504, 2, 0, 2, 252)),
        ({"input": 252, "kernel": 3, "padding": 0, "stride": 1}, ConvSize(252, 3, 0, 1, 250)),
        # ResNet's first layer: (224 - 7 + 6) / 2 = 111.5, rounded down.
        ({"input": 224, "kernel": 7, "padding": 3, "stride": 2}, ConvSize(224, 7, 3, 2, 112)),
    ],
)
def test_known_sizes(given, solved):
    assert solve_size(**given) == solved


def test_unused_counts_the_pixels_that_no_window_reaches():
    # Windows of 3 at 0, 2, 4, 6 of 10 pixels end at pixel 8: one is left.
    assert solve_size(input=10, kernel=3, padding=0, stride=2).unused == 1
    assert solve_size(input=9, kernel=3, padding=0, stride=2).unused == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"input": 512, "kernel": 4, "stride": 1, "output": 512},
            "padding 1 gives output 511, padding 2 gives output 513",
        ),
        # Padding 0 leaves no room for the kernel.
        ({"input": 4, "kernel": 5, "stride": 1, "output": 1}, "output 1: padding 1 gives output 2; change"),
        ({"input": 10, "kernel": 3, "padding": 0, "output": 50}, "stride 1 gives output 8; change"),
        ({"kernel": 3, "padding": 9, "stride": 1, "output": 5}, "input 1 gives output 17; change"),
        ({"input": 5, "padding": 0, "stride": 1, "output": 6}, "kernel 1 gives output 5; change"),
        ({"input": 512, "padding": 0, "stride": 2, "output": 252}, r"kernel fits .*: 9, 10, .*\(10 is the exact fit"),
        ({"kernel": 3, "padding": 0, "stride": 9, "output": 5}, "9 values from 39 to 47, .*39 is the exact fit"),
        ({"input": 10, "kernel": 3, "padding": 0, "output": 1}, "every one from 8 up"),
        ({"input": 4, "kernel": 4, "padding": 0, "output": 1, "exact": True}, "every one from 1 up"),
        (
            {"input": 10, "kernel": 3, "padding": 0, "stride": 2, "exact": True},
            "output 4 leaves out the last 1 pixel of",
        ),
        (
            {"input": 4, "kernel": 7, "padding": 1, "stride": 1},
            r"kernel 7 is larger than input 4 with padding 1 \(6 pix",
        ),
        ({"input": 4, "kernel": 7, "padding": 1, "output": 1}, "kernel 7 is larger than input 4"),
        ({"input": 4, "kernel": 3}, "left out: padding and stride and output"),
        ({"input": 4, "kernel": 3, "padding": 0, "stride": 1, "output": 2}, "left out: none"),
        ({"input": 4.5, "kernel": 3, "padding": 0, "stride": 1}, "input must be a whole number .* not 4.5"),
        ({"input": 10**9, "kernel": 3, "padding": 0, "stride": 1}, "input must be .* to 100000, not 1000000000"),
    ],
)
def test_what_has_no_single_solution_is_explained(given, message):
    with pytest.raises(StudyError, match=message):
        solve_size(**given)


def test_every_size_out_of_range_is_told_at_once():
    with pytest.raises(StudyError) as error:
        solve_size(input=0, kernel=0, padding=-1, stride=0)

    assert len(error.value.problems) == 4


def test_the_largest_sizes_are_solved_or_refused():
    assert solve_size(input=100_000, padding=0, stride=1, output=1).kernel == 100_000
    with pytest.raises(StudyError, match="100000 values from"):
        solve_size(kernel=1, padding=0, stride=100_000, output=100_000)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"), [(32, 5, 1, 2), (33, 2, 2, 0), (32, 7, 3, 1), (5, 5, 9, 0)]
)
def test_output_size_equals_torch(size, kernel, stride, padding):
    image = torch.zeros(1, 1, size, size)

    expected = nn.Conv2d(1, 1, kernel, stride, padding)(image).shape[-1]

    assert output_size(size, Window(kernel, stride, padding)) == expected


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9])
def test_same_padding_keeps_the_size_as_torchs_does(kernel):
    padding = same_padding(kernel)

    assert output_size(11, Window(kernel, 1, padding)) == 11
    assert nn.Conv2d(1, 1, kernel, padding="same")._reversed_padding_repeated_twice == [padding] * 4


def test_same_padding_of_an_even_kernel_says_why_not_and_what_to_do():
    with pytest.raises(StudyError, match=r"would need 1\.5 zeros on each side .* use an odd kernel, 3 or 5"):
        same_padding(4)
    with pytest.raises(StudyError, match="kernel must be"):
        same_padding(0)


def measured_field(windows, pixels=96):
    """Rows of the input with a gradient from the middle output, and how far the field moves to the next output."""
    network = nn.Sequential(*(nn.Conv2d(1, 1, w.kernel_size, w.stride, w.padding, bias=False) for w in windows))
    for parameter in network.parameters():
        nn.init.ones_(parameter)  # Positive weights: no gradient can cancel.
    image = torch.ones(1, 1, pixels, pixels, requires_grad=True)
    output = network(image)
    middle = output.shape[-1] // 2
    rows = []
    for row in (middle, middle + 1):
        (gradient,) = torch.autograd.grad(output[0, 0, row, middle], image, retain_graph=True)
        rows.append(gradient[0, 0].sum(1).nonzero().squeeze(1))
    return int(rows[0][-1] - rows[0][0]) + 1, int(rows[1][0] - rows[0][0]), output.shape[-1]


@pytest.mark.parametrize(
    "windows",
    [
        [Window(5, 1, 2), Window(2, 2), Window(5, 1, 2), Window(2, 2), Window(5, 1, 2), Window(2, 2)],
        [Window(7, 2, 3), Window(3, 2, 1), Window(3, 1, 1)],
        [Window(3, 3, 0), Window(1), Window(4, 1, 2)],
    ],
)
def test_receptive_fields_are_where_the_gradient_is(windows):
    fields = receptive_fields(windows, 96)

    for number, field in enumerate(fields, start=1):
        assert (field.size, field.stride, field.output_size) == measured_field(windows[:number])


def test_receptive_fields_of_the_baseline_by_hand():
    # 5; 5+1; 6+4*2; 14+2; 16+4*4; 32+4.
    windows = [Window(5, 1, 2), Window(2, 2)] * 3

    fields = receptive_fields(windows)

    assert [field.size for field in fields] == [5, 6, 14, 16, 32, 36]
    assert [field.stride for field in fields] == [1, 2, 2, 4, 4, 8]
    assert {field.output_size for field in fields} == {None}


def test_receptive_fields_without_an_input_size_know_no_largest_image():
    assert receptive_fields([Window(500, 7), Window(11)])[-1].size == 500 + 10 * 7


def test_a_stack_names_the_layer_that_does_not_fit():
    with pytest.raises(StudyError, match="layer 2: kernel 9 is larger than input 6"):
        receptive_fields([Window(2, 2), Window(9)], 12)
    with pytest.raises(StudyError, match="layer 1: stride must be"):
        receptive_fields([Window(2, 0), Window(9)])
