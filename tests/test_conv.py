import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d

from harness.errors import StudyError
from harness.trainers.images.conv import convolve, cross_correlate

# The assignment's image and the Sobel kernel.
IMAGE = [[1, 0, 2, 3, 1], [3, 2, 0, 7, 0], [0, 6, 1, 1, 4]]
SOBEL = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
# Row 1 by hand: 2*0 + 1*2 = 2; -2*1 + 2*2 - 3 + 0 = -1; 2*3 - 0 + 7 - 2 = 11; 2*1 - 2*2 + 0 - 0 = -2; -2*3 - 7 = -13.
EXPECTED = [[2, -1, 11, -2, -13], [10, -4, 8, 2, -18], [14, -1, -5, 6, -9]]
PRINTED_IN_THE_REPORT = [[2, -1, 13, -1, -17], [10, -4, 8, 2, -18], [14, -1, -5, 6, -9]]


def test_cross_correlation_of_the_assignment_corrects_three_cells_of_the_report():
    result = cross_correlate(IMAGE, SOBEL, padding=1)

    assert result.tolist() == EXPECTED
    assert (result != np.array(PRINTED_IN_THE_REPORT)).nonzero()[0].tolist() == [0, 0, 0]


def test_convolution_flips_the_kernel_which_negates_the_sobel_result():
    assert convolve(IMAGE, SOBEL, padding=1).tolist() == (-np.array(EXPECTED)).tolist()


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("kernel_shape", [(1, 1), (3, 3), (2, 4), (5, 1)])
def test_cross_correlation_equals_torch(kernel_shape, padding, stride):
    generator = np.random.default_rng(0)
    image, kernel = generator.normal(size=(7, 9)), generator.normal(size=kernel_shape)

    ours = cross_correlate(image, kernel, padding=padding, stride=stride)

    theirs = F.conv2d(torch.tensor(image)[None, None], torch.tensor(kernel)[None, None], stride=stride, padding=padding)
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), atol=1e-12)


@pytest.mark.parametrize("kernel_shape", [(3, 3), (2, 4)])
def test_convolution_equals_scipy(kernel_shape):
    generator = np.random.default_rng(1)
    image, kernel = generator.integers(-9, 9, (6, 8)), generator.integers(-9, 9, kernel_shape)

    ours = convolve(image, kernel, padding=2)

    np.testing.assert_array_equal(ours, convolve2d(np.pad(image, 2), kernel, mode="valid"))


def test_integers_stay_integers_beyond_the_precision_of_floats():
    # 2**53 + 1 is the first integer that a float64 cannot hold.
    assert cross_correlate([[2**53 + 1]], [[1]]).tolist() == [[2**53 + 1]]
    assert cross_correlate([[1]], [[1]]).dtype == np.int64
    assert cross_correlate([[1]], [[1.0]]).dtype == np.float64


def test_narrow_integer_arrays_do_not_wrap_around():
    assert cross_correlate(np.array([[200, 200]], dtype=np.uint8), np.array([[1, 1]], dtype=np.uint8)).tolist() == [
        [400]
    ]


def test_sums_beyond_64_bits_are_refused_and_floats_allowed():
    with pytest.raises(StudyError, match="64-bit integers; write the numbers with a decimal point"):
        cross_correlate([[2**62, 2**62]], [[1, 1]])
    assert cross_correlate([[2.0**62, 2.0**62]], [[1, 1]]).tolist() == [[2.0**63]]
    assert cross_correlate([[2**62, 2**61]], [[1, 0]]).tolist() == [[2**62]]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([[1, 2], [3], [4, 5, 6]], "image: row 2 has 1 cells, row 1 has 2"),
        ([[1, 2], [3], [4, 5, 6]], "image: row 3 has 3 cells, row 1 has 2"),
        ([[1, "x"]], "image: row 1, column 2: 'x' is not a finite number"),
        ([[1, None]], "column 2: None is not"),
        ([[True, 1]], "column 1: True is not"),
        ([[1.0, float("nan")]], "column 2: nan is not"),
        ([[1.0], [float("inf")]], "row 2, column 1: inf is not"),
        ([[2**63]], "of at most 64 bits"),
        ([[[1]]], r"\[1\] is not a finite number"),
        ([], "image: expected rows of numbers"),
        ([[]], "image: expected rows of numbers"),
        ([1, 2], "image: expected rows of numbers"),
        (3, "image: expected rows of numbers"),
        ("12", "image: expected rows of numbers"),
        (np.zeros((2, 2, 2)), "is not a finite number"),
        (np.array(1.0), "image: expected rows of numbers"),
    ],
)
def test_an_image_that_is_no_rectangle_of_numbers_is_refused_with_the_place(image, message):
    with pytest.raises(StudyError, match=message):
        cross_correlate(image, [[1]])


@pytest.mark.parametrize("operation", [cross_correlate, convolve])
def test_everything_wrong_is_told_at_once(operation):
    with pytest.raises(StudyError) as error:
        operation([[1], [2, 3]], [["a"]], padding=-1, stride=0)

    assert len(error.value.problems) == 4
    for part in ("padding must be", "stride must be", "image: row 2 has 2 cells", "kernel: row 1, column 1: 'a'"):
        assert part in str(error.value)


def test_many_bad_cells_are_counted_instead_of_listed():
    with pytest.raises(StudyError, match="image: 94 more problems of these kinds") as error:
        cross_correlate([["x"] * 100], [[1]])

    assert len(error.value.problems) == 7


def test_a_kernel_larger_than_the_padded_image_is_refused():
    with pytest.raises(StudyError, match=r"kernel of 5x5 is larger than the image of 3x5 with padding 0 \(3x5\)"):
        cross_correlate(IMAGE, np.ones((5, 5)))
    with pytest.raises(StudyError, match="kernel of 1x6 is larger"):
        cross_correlate(IMAGE, np.ones((1, 6)))
    assert cross_correlate(IMAGE, np.ones((5, 5)), padding=1).shape == (1, 3)


def test_an_absurd_padding_is_refused_before_memory_is_taken():
    with pytest.raises(StudyError, match="more than 10000000 pixels"):
        cross_correlate([[1]], [[1]], padding=100_000)
