import subprocess
import sys

import pytest
from click.testing import CliRunner
from schemas import fitting

from harness.cli.conv import conv
from harness.errors import StudyError

IMAGE = "1 0 2 3 1; 3 2 0 7 0; 0 6 1 1 4"
SOBEL = "-1 0 1; -2 0 2; -1 0 1"
# Hand computation in test_conv.py.
EXPECTED = [[2, -1, 11, -2, -13], [10, -4, 8, 2, -18], [14, -1, -5, 6, -9]]


def run(*arguments):
    return CliRunner().invoke(conv, arguments, catch_exceptions=False).output


def output_of(image, kernel, *options):
    return fitting("conv apply", run("apply", "--image", image, "--kernel", kernel, *options, "--json"))["output"]


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        "1,0,2,3,1;3,2,0,7,0;0,6,1,1,4;",
        "1 0 2 3 1\n3 2 0 7 0;\n0 6 1 1 4\n",
        "[[1, 0, 2, 3, 1], [3, 2, 0, 7, 0], [0, 6, 1, 1, 4]]",
    ],
)
def test_apply_reads_the_same_numbers_from_text_and_from_files(image, tmp_path):
    file = tmp_path / "my image.txt"
    file.write_text(image, encoding="utf-8-sig")

    assert output_of(image, SOBEL, "--padding", "1") == EXPECTED
    assert output_of(str(file), SOBEL, "--padding", "1") == EXPECTED


def test_apply_prints_every_cell():
    output = run("apply", "--image", IMAGE, "--kernel", SOBEL, "--padding", "1")

    assert "cross-correlation, padding 1, stride 1: 3x5" in output
    assert [[int(cell) for cell in line.split()] for line in output.splitlines()[1:]] == EXPECTED


def test_apply_cuts_no_wide_row_and_rounds_no_integer():
    wide = " ".join(str(1_000_000_007 + column) for column in range(60))

    output = run("apply", "--image", wide, "--kernel", "1")

    assert all(str(1_000_000_007 + column) in output for column in range(60))


def test_flip_and_stride_reach_the_computation():
    assert output_of(IMAGE, SOBEL, "--padding", "1", "--flip") == [[-cell for cell in row] for row in EXPECTED]
    assert output_of(IMAGE, SOBEL, "--padding", "1", "--stride", "2") == [row[::2] for row in EXPECTED[::2]]
    assert output_of("1 2", "0.5", "--flip") == [[0.5, 1.0]]
    assert "convolution (flipped kernel)" in run("apply", "--image", "1", "--kernel", "1", "--flip")


@pytest.mark.parametrize(
    ("image", "kernel", "options", "message"),
    [
        ("1 2; 3", "1", [], "image: row 2 has 1 cells, row 1 has 2"),
        ("1 x", "1", [], "image: row 1, column 2: 'x' is not a finite number"),
        ("1,,2", "1", [], "image: row 1, column 2: '' is not a finite number"),
        ("1 2", "1 nan", [], "kernel: row 1, column 2: nan is not"),
        ("1 2;;3 4", "1", [], "image: expected rows of numbers"),
        ("", "1", [], "image: expected rows of numbers"),
        ("[[1, 2]", "1", [], "image: not valid JSON"),
        ("missing.json", "1", [], "image: 'missing.json' is neither numbers nor a file .*No such file"),
        ("1", "no/such file.txt", [], "kernel: 'no/such file.txt' is neither numbers nor a file"),
        ("1 2", "1 2; 3 4", [], "the kernel of 2x2 is larger than the image of 1x2"),
        ("1", "1", ["--stride", "0"], "stride must be a whole number from 1"),
        ("1", "1", ["--padding", "-1"], "padding must be a whole number from 0"),
    ],
)
def test_bad_input_of_apply_is_one_clear_sentence(image, kernel, options, message):
    with pytest.raises(StudyError, match=message):
        run("apply", "--image", image, "--kernel", kernel, *options)


def test_a_binary_file_is_refused(tmp_path):
    file = tmp_path / "image.png"
    file.write_bytes(b"\x89PNG\r\n\xff\xfe")

    with pytest.raises(StudyError, match=r"image: .*image\.png is not a text file"):
        run("apply", "--image", str(file), "--kernel", "1")


@pytest.mark.parametrize("unknown", ["input", "kernel", "padding", "stride", "output"])
def test_size_solves_for_what_is_left_out(unknown):
    # (8 - 4 + 2) / 3 = 2 exactly, so that each size follows from the others.
    sizes = {"input": 8, "kernel": 4, "padding": 1, "stride": 3, "output": 3}
    options = [part for name, value in sizes.items() if name != unknown for part in (f"--{name}", str(value))]

    printed = fitting("conv size", run("size", *options, "--exact", "--json"))

    assert printed == {"format": 1, "solved": unknown, **sizes, "unused": 0}
    assert f"{unknown} = {sizes[unknown]}" in run("size", *options, "--exact")


def test_size_tells_that_several_fit_unless_exact():
    options = ["--input", "512", "--padding", "0", "--stride", "2", "--output", "252"]

    with pytest.raises(StudyError, match="9, 10, because the division is rounded down"):
        run("size", *options)
    assert "kernel = 10" in run("size", *options, "--exact")


def test_size_asks_for_exactly_one_unknown():
    with pytest.raises(StudyError, match=r"leave out exactly one of .* left out: stride and output"):
        run("size", "--input", "512", "--kernel", "9", "--padding", "0")


def test_same_prints_the_padding_and_refuses_an_even_kernel():
    assert fitting("conv same", run("same", "--kernel", "5", "--json")) == {"format": 1, "kernel": 5, "padding": 2}
    assert "padding = 2" in run("same", "--kernel", "5")
    with pytest.raises(StudyError, match="use an odd kernel, 3 or 5"):
        run("same", "--kernel", "4")


def test_stack_prints_receptive_fields_and_sizes():
    rows = fitting("conv stack", run("stack", "5/1/2, 2/2/0,3", "--input", "32", "--json"))["layers"]

    # 5; 5+1; 6+2*2. 32; 16; 16-2.
    assert [row["receptive_field"] for row in rows] == [5, 6, 10]
    assert [row["total_stride"] for row in rows] == [1, 2, 2]
    assert [row["output"] for row in rows] == [32, 16, 14]
    assert [(row["layer"], row["kernel"], row["stride"], row["padding"]) for row in rows][2] == (3, 3, 1, 0)


def test_stack_shows_sizes_only_for_a_given_input():
    with_input, without = run("stack", "5/1/2,2/2", "--input", "32"), run("stack", "5/1/2,2/2")

    assert "output" in with_input
    assert "output" not in without
    assert "receptive field" in without


@pytest.mark.parametrize("layers", ["", "5,", "5/1/2/3", "x", "5/1.5"])
def test_stack_refuses_what_is_not_a_list_of_layers(layers):
    with pytest.raises(StudyError, match=r"layers: .* expected kernel, kernel/stride or kernel/stride/padding"):
        run("stack", layers)


def test_stack_names_the_layer_that_does_not_fit():
    with pytest.raises(StudyError, match="layer 2: kernel 9 is larger than input 6"):
        run("stack", "2/2,9", "--input", "12")
    with pytest.raises(StudyError, match="layer 1: stride must be"):
        run("stack", "5/0")


def test_the_commands_load_nothing_heavy_before_they_run():
    code = "import sys, harness.cli.conv; print([m for m in ('numpy', 'rich', 'torch', 'pandas') if m in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"
