"""`harness visualize`: pictures of what an ended cell has learned."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.attach import attach
from harness.cli.options import store_option
from harness.cli.sentences import tell
from harness.errors import ResultsError
from harness.names import suggestion
from harness.plan.cell import Cell
from harness.plan.manifest import Manifest
from harness.store.cells import Cells

if TYPE_CHECKING:
    from torch import nn

    from harness.trainers.images.visualize import Grid

OPTIONS = [
    click.option(
        "--study", required=True, help="A study's name or file, or the id of a study run (`harness results`)."
    ),
    click.option("--variant", default="baseline", show_default=True, help="A variant of that study run."),
    click.option("--seed", type=int, help="Of the cell; by default the first one that has finished."),
    click.option("--profile", help="Only study runs of this profile."),
    click.option("--output", type=click.Path(path_type=Path), required=True, help="The PNG file to write."),
    store_option,
]


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.group()
def visualize() -> None:
    """Draw what a trained network looks like inside, as a PNG; it is logged to the study's MLflow run, too."""


@visualize.command()
@_options
def filters(output: Path, **which: Any) -> None:
    """Draw the filters of the first convolution, as colours around grey (zero).

    \b
    harness visualize filters --study task3 --variant batch-norm --output filters.png
    """
    from harness.report.files import check_file
    from harness.trainers.images.visualize import filter_grid

    check_file(output)
    chosen = Chosen(**which)
    _finish(chosen, filter_grid(chosen.network, chosen.title), output, "filters")


@visualize.command()
@click.option("--layer", required=True, help="first, last (convolution), conv3 (the third one), or a module's name.")
@click.option("--image", type=click.Path(path_type=Path), required=True, help="A PNG, JPEG, BMP or WebP file.")
@_options
def activations(layer: str, image: Path, output: Path, **which: Any) -> None:
    """Draw what a layer makes of an image: a map for each channel.

    \b
    harness visualize activations --layer last --image cat.png --study task4 --output maps.png
    """
    from harness.report.files import check_file
    from harness.trainers.images.visualize import activation_grid, read_image

    check_file(output)
    chosen = Chosen(**which)
    pixels, remarks = read_image(image, chosen.image_size)
    for remark in remarks:
        tell(f"note: {remark}", err=True)
    grid = activation_grid(chosen.network, layer, pixels, chosen.cell.settings.preprocessing, chosen.title)
    _finish(chosen, grid, output, f"activations-{layer}")


class Chosen:
    """The cell that the options name, and its network with the best weights.

    Raises:
        ResultsError: there is no such study run, variant or seed, the cell has no weights to show, or its trainer is
            not the one of images.
    """

    network: "nn.Module"

    def __init__(self, study: str, variant: str, seed: int | None, profile: str | None, store: Path) -> None:
        from harness.store.load import find_manifest
        from harness.trainers.images.data.sources import default_cache
        from harness.trainers.images.train import BEST_WEIGHTS_FILE
        from harness.trainers.images.trained import load_network
        from harness.trainers.images.trainer import ImageTrainer

        self.cells = Cells(store.absolute())
        self.manifest = find_manifest(self.cells, study, profile)
        key = find_cell(self.cells, self.manifest, variant, seed)
        self.cell: Cell = self.cells.spec(key)
        if not isinstance(self.cell.trainer, ImageTrainer):
            raise ResultsError(
                f"study run {self.manifest.id} was trained by {self.cell.trainer.kind!r}, whose networks the harness "
                "does not know; it draws those of the image trainer."
            )
        weights = self.cells.folder(key) / BEST_WEIGHTS_FILE
        self.network, _, (side, _) = load_network(self.cell.settings, self.cell.seed, weights, cache=default_cache())
        self.image_size = self.cell.settings.preprocessing.resize or side
        self.name = f"{variant}-seed-{self.cell.seed}"
        self.title = f"{self.manifest.id}, {variant}, seed {self.cell.seed}"


def find_cell(cells: Cells, manifest: Manifest, variant: str, seed: int | None) -> str:
    """The key of a finished cell with weights; raises ResultsError, saying what there is instead."""
    run = f"study run {manifest.id}"
    found = manifest.variant(variant)
    if found is None:
        names = [it.name for it in manifest.variants]
        raise ResultsError(f"{run} has no variant {variant!r}.{suggestion(variant, names)} It has: {', '.join(names)}.")
    by_seed = found.cells
    if seed is not None and seed not in by_seed:
        raise ResultsError(f"{run} has no seed {seed} of {variant}; it has: {', '.join(map(str, by_seed))}.")
    asked = list(by_seed) if seed is None else [seed]
    results = {it: cells.result(by_seed[it]) for it in asked}
    finished = [it for it, result in results.items() if result and result.is_finished]
    if not finished:
        ends = "; ".join(f"seed {it}: {result.status if result else 'not ended'}" for it, result in results.items())
        study = manifest.asked or manifest.study
        again = f"`harness ablate --study {study} --profile {manifest.profile}` trains what is missing"
        raise ResultsError(f"{run}: no finished cell of {variant} to show ({ends}). {again}.")
    return by_seed[finished[0]]


def _finish(chosen: Chosen, grid: "Grid", output: Path, what: str) -> None:
    from harness.report.files import write_file
    from harness.trainers.images.visualize import draw

    content = draw(grid)
    write_file(output, content)
    tell(f"{output}: {grid.title}")
    attach(chosen.cells, chosen.manifest, {f"{what}-{chosen.name}.png": output}, what="The picture")
