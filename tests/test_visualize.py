"""Pictures of networks: what stands in the grids, which layers and cells can be asked for, where the picture goes."""

import io

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from synthetic import scored_study, synthetic_plan, synthetic_store
from torch import nn
from tracked import a_manifest, a_store, cells_of, finish, mlflow_runs, start

from harness.cli import cli
from harness.errors import DataError, StudyError
from harness.trainers.images.models import build_model
from harness.trainers.images.settings import ConvNet, Preprocessing, ResNet18
from harness.trainers.images.visualize import activation_grid, draw, filter_grid, find_layer, read_image

PLAIN = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))  # pixels in [0, 1] as they are


def small(**settings):
    return build_model(ConvNet(filters=(4, 6), **settings), 3, image_size=(8, 8), seed=0).eval()


def an_image(side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_filters_are_colours_around_grey_scaled_by_their_largest_weight():
    network = small(kernel_size=3)
    with torch.no_grad():
        network.blocks[0].conv.weight[1] = 0  # a dead filter
        network.blocks[0].conv.weight[2] = 0
        network.blocks[0].conv.weight[2, 0, 1, 2] = -0.5  # red, row 1, column 2
        network.blocks[0].conv.weight[2, 2, 0, 0] = 0.25  # blue, row 0, column 0

    grid = filter_grid(network, "a cell")

    assert grid.title == "a cell: 4 filters (3x3) of blocks.0.conv; grey is zero"
    assert [panel.values.shape for panel in grid.panels] == [(3, 3, 3)] * 4
    assert (grid.panels[1].values == 0.5).all()
    assert grid.panels[2].label == "2: ±0.5"
    assert grid.panels[2].values[1, 2].tolist() == [0.0, 0.5, 0.5]
    assert grid.panels[2].values[0, 0].tolist() == [0.5, 0.5, 0.75]
    assert all(panel.values.min() >= 0 and panel.values.max() <= 1 for panel in grid.panels)


@pytest.mark.parametrize("pooling", ["max", "stride"])
def test_activations_are_the_layers_own_output_not_what_the_next_layer_makes_of_it(pooling):
    """With striding the ReLU behind the convolution works in place; negative values must survive."""
    network = small(pooling=pooling)
    image = an_image()

    grid = activation_grid(network, "last", image, PLAIN, "a cell")

    x = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    expected = network.blocks[1].conv(network.blocks[0](x))[0]
    assert len(grid.panels) == 1 + 6
    assert np.allclose(grid.panels[0].values, image / 255)
    for panel, channel in zip(grid.panels[1:], expected, strict=True):
        np.testing.assert_allclose(panel.values, channel.detach().numpy(), atol=1e-5)
    assert min(panel.values.min() for panel in grid.panels[1:]) < 0
    assert grid.title == f"a cell: 6 channels ({'x'.join(map(str, expected.shape[1:]))}) after blocks.1.conv"


def test_a_map_is_labelled_with_its_range_and_a_dead_one_as_such():
    network = small()
    with torch.no_grad():
        network.blocks[0].conv.weight[3] = 0
        network.blocks[0].conv.bias[3] = 0.25

    panels = activation_grid(network, "first", an_image(), PLAIN, "").panels

    assert panels[4].label == "3: 0.25 everywhere"
    assert panels[1].label == f"0: {panels[1].values.min():.2g} to {panels[1].values.max():.2g}"


def test_the_networks_preprocessing_is_applied():
    network, image = small(), an_image()
    shifted = activation_grid(network, "first", image, Preprocessing(mean=(0.5, 0.5, 0.5)), "").panels[1].values
    assert not np.allclose(shifted, activation_grid(network, "first", image, PLAIN, "").panels[1].values)


def test_more_channels_than_fit_are_cut_and_the_title_says_so():
    network = build_model(ConvNet(filters=(70,)), 3, image_size=(8, 8), seed=0).eval()

    assert "the first 64 of 70 filters (5x5) of blocks.0.conv" in filter_grid(network, "").title
    grid = activation_grid(network, "first", an_image(), PLAIN, "")
    assert len(grid.panels) == 64  # with the image
    assert "the first 63 of 70 channels (8x8)" in grid.title


def test_layers_go_by_name_by_number_or_by_end_of_the_network():
    network = build_model(ResNet18(weights="none"), 10, image_size=(64, 64), seed=0)

    assert find_layer(network, "first")[0] == "conv1"
    assert find_layer(network, "last")[0] == "layer4.1.conv2"
    assert find_layer(network, "conv2")[0] == "layer1.0.conv1"  # the second one; no module has that name
    assert find_layer(network, "conv1")[1] is network.conv1
    assert find_layer(network, "layer4")[1] is network.layer4
    assert find_layer(small(), "conv2")[0] == "blocks.1.conv"


def test_an_unknown_layer_is_refused_with_the_names_there_are():
    with pytest.raises(StudyError) as error:
        find_layer(small(), "blocks.0.conf")
    assert "--layer blocks.0.conf: no such layer. Did you mean 'blocks.0.conv'?" in str(error.value)
    assert "conv1 (blocks.0.conv), conv2 (blocks.1.conv); `first` and `last`" in str(error.value)


def test_a_layer_without_maps_and_a_network_without_convolutions_are_refused():
    with pytest.raises(StudyError, match=r"--layer hidden: what it gives is not maps. Its convolutions are: conv1"):
        activation_grid(small(), "hidden", an_image(), PLAIN, "")
    with pytest.raises(StudyError, match="has no convolution"):
        filter_grid(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), "")
    with pytest.raises(StudyError, match="takes 5 channels, so its filters have no colours"):
        filter_grid(nn.Sequential(nn.Conv2d(5, 3, 3)), "")


def saved(path, mode="RGB", size=(8, 8), **options):
    Image.fromarray(an_image(16)).resize(size).convert(mode).save(path, **options)
    return path


def test_an_image_of_the_right_kind_needs_no_remark(tmp_path):
    pixels, remarks = read_image(saved(tmp_path / "a.png"), 8)
    assert (pixels.shape, remarks) == ((8, 8, 3), [])
    with Image.open(tmp_path / "a.png") as file:
        assert (pixels == np.asarray(file)).all()
    assert read_image(tmp_path / "a.png", 20)[0].shape == (20, 20, 3)


@pytest.mark.parametrize(
    ("mode", "size", "remark"),
    [
        ("L", (8, 8), "is greyscale: all three channels show the same"),
        ("LA", (8, 8), "is greyscale"),
        ("RGBA", (8, 8), "has transparency: it was laid on white"),
        ("RGB", (12, 8), "is 12x8: it was squeezed to a square"),
    ],
)
def test_greyscale_transparent_and_oblong_images_are_taken_and_it_is_said_how(tmp_path, mode, size, remark):
    path = saved(tmp_path / "a.png", mode, size)
    pixels, remarks = read_image(path, 8)
    assert pixels.shape == (8, 8, 3)
    assert any(it.startswith(f"{path} {remark}") for it in remarks)
    if mode == "L":
        assert (pixels[..., :1] == pixels).all()


def test_a_clear_pixel_becomes_white(tmp_path):
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png", 4)[0] == 255).all()


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    saved(tmp_path / "cut.png", size=(64, 64))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:300])
    for name, why in (("missing.png", "cannot be read"), ("text.png", "is no PNG, JPEG"), ("cut.png", "is damaged")):
        with pytest.raises(DataError, match=f"--image .*{name}: {why}"):
            read_image(tmp_path / name, 8)


@pytest.mark.slow
def test_the_picture_shows_the_panels_in_rows_with_their_labels():
    grid = activation_grid(small(), "last", an_image(), PLAIN, "a cell")
    picture = Image.open(io.BytesIO(draw(grid)))
    assert picture.format == "PNG"
    assert picture.size[0] > picture.size[1]  # seven panels: one row
    colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 100


SHAPES = {"data.train_images": 100, "data.test_images": 10}
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with finished cells of two networks on the drawn shapes, and one that diverged."""
    root = tmp_path_factory.mktemp("store")
    _, cells = a_store(root)
    plain = cells_of({**SHAPES, "model.filters": [4, 6]}, SEEDS)
    resized = cells_of({**SHAPES, "model.filters": [4], "preprocessing.resize": 48}, SEEDS[:1])
    (diverged,) = cells_of({**SHAPES, "optimizer.learning_rate": 9.0}, SEEDS[:1])
    cells.write_manifest(a_manifest({"baseline": plain, "resized": resized, "diverged": [diverged]}))
    for cell in (plain[1], plain[2], *resized):
        start(cells, cell)
        side = cell.settings.preprocessing.resize or 32
        network = build_model(cell.settings.model, 10, image_size=(side, side), seed=cell.seed)
        finish(cells, cell)
        save_file(network.state_dict(), cells.folder(cell.key) / "best.safetensors")
    start(cells, diverged)
    finish(cells, diverged, status="diverged", reason="loss is not finite")
    return cells


@pytest.fixture
def run(store, tmp_path_factory, monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "shapes-cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*arguments, exit_code=0):
        options = ("--store", str(store.root), "--study", "task3", "--output", str(tmp_path / "out" / "picture.png"))
        result = CliRunner().invoke(cli, ["visualize", *arguments, *options])
        assert result.exit_code == exit_code, result.output
        return result.output.replace("\n", " ")

    return call


@pytest.mark.slow
def test_filters_of_an_ended_cell_are_written_and_logged_to_the_studys_run(run, store, tmp_path):
    from mlflow import MlflowClient

    from harness.tracking import init, resolve_uri, sync

    uri = resolve_uri(None, store.root)
    init(uri, store.root)
    sync(uri, store.root)
    # Seed 0 has not ended, so that the first one that has finished is taken.
    assert "task3-quick-1a2b3c4d, baseline, seed 1: 4 filters (5x5)" in run("filters")
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")
    (study,) = mlflow_runs(uri, store.root)["study"]
    names = [it.path for it in MlflowClient(tracking_uri=uri).list_artifacts(study.info.run_id)]
    assert "filters-baseline-seed-1.png" in names
    assert study.data.tags["harness.status"] == "interrupted"  # of its cells one has not ended
    assert len(mlflow_runs(uri, store.root)["cell"]) == 4


def test_activations_take_the_image_at_the_size_that_the_network_sees(run, tmp_path):
    image = saved(tmp_path / "grey.png", "L", (30, 20))
    output = run("activations", "--layer", "last", "--image", str(image), "--variant", "resized")
    assert "4 channels (48x48) after blocks.0.conv" in output
    assert "is greyscale" in output
    assert "is 30x20: it was squeezed to a square" in output
    assert "seed 2: 6 channels (16x16)" in run("activations", "--layer", "conv2", "--image", str(image), "--seed", "2")


def test_what_cannot_be_shown_is_an_error_that_says_what_can(run, tmp_path):
    assert "has no variant 'base'. Did you mean 'baseline'?" in run("filters", "--variant", "base", exit_code=2)
    assert "has no seed 9 of baseline; it has: 0, 1, 2." in run("filters", "--seed", "9", exit_code=2)
    assert "no finished cell of baseline to show (seed 0: not ended)" in run("filters", "--seed", "0", exit_code=2)
    assert "(seed 0: diverged)" in run("filters", "--variant", "diverged", exit_code=2)
    image = str(tmp_path / "missing.png")
    assert "cannot be read" in run("activations", "--layer", "first", "--image", image, exit_code=2)
    saved(tmp_path / "a.png")
    assert "Its convolutions are: conv1 (blocks.0.conv), conv2 (blocks.1.conv)" in run(
        "activations", "--layer", "nothing", "--image", str(tmp_path / "a.png"), exit_code=2
    )


def test_networks_of_another_trainer_are_refused_with_its_name(tmp_path):
    synthetic_store(tmp_path, synthetic_plan(study=scored_study("minimize"), profile="standard", seeds=1))
    options = ["--store", str(tmp_path), "--study", "scored-minimize", "--output", str(tmp_path / "a.png")]
    result = CliRunner().invoke(cli, ["visualize", "filters", *options])
    assert result.exit_code == 2
    said = result.output.replace("\n", " ")
    assert "was trained by 'synthetic:Scored', whose networks the harness does not know" in said


def test_without_any_study_run_the_command_that_makes_one_is_named(tmp_path):
    options = ["--store", str(tmp_path), "--study", "task3", "--output", str(tmp_path / "a.png")]
    result = CliRunner().invoke(cli, ["visualize", "filters", *options])
    assert result.exit_code == 2
    assert "`harness ablate --study task3` makes them" in result.output.replace("\n", " ")


def test_an_output_that_cannot_be_written_is_found_before_anything_is_computed(run, store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    arguments = ["--store", str(store.root), "--study", "task3", "--output", str(tmp_path / "file" / "a.png")]
    result = CliRunner().invoke(cli, ["visualize", "filters", *arguments])
    assert result.exit_code == 2
    assert "--output" in result.output


def test_weights_of_another_architecture_are_refused(run, store):
    import shutil

    resized = store.manifests()["task3-quick-1a2b3c4d"].variants[1].cells[0]
    baseline = store.manifests()["task3-quick-1a2b3c4d"].variants[0].cells[2]
    path = store.folder(baseline) / "best.safetensors"
    kept = path.read_bytes()
    shutil.copy(store.folder(resized) / "best.safetensors", path)
    try:
        assert "not the weights of cell" in run("filters", "--seed", "2", exit_code=2)
    finally:
        path.write_bytes(kept)


def test_a_server_that_is_down_keeps_the_picture_for_later(run, store, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    output = run("filters", "--variant", "resized")
    assert "waits for MLflow" in output
    assert (tmp_path / "out" / "picture.png").exists()
    kept = store.root / "tracking" / "summaries" / "task3-quick-1a2b3c4d" / "files"
    assert (kept / "filters-resized-seed-0.png").exists()
