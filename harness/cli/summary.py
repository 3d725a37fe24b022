"""`harness summary`: the layers of a variant's model, in numbers."""

from dataclasses import asdict

import click

from harness.cli.as_json import print_json
from harness.cli.grid import Column, print_grid
from harness.cli.options import json_option, study_option
from harness.cli.screen import Screen
from harness.cli.sentences import tell
from harness.study.load import load_study
from harness.trainers.images.model_summary import Summary, summarize_settings, variant_settings


@click.command()
@study_option
@click.option("--variant", default="baseline", show_default=True, help="A change, a combination, or CHANGE+CHANGE.")
@click.option("--profile", default="standard", show_default=True, help="A profile of the study.")
@json_option
def summary(study: str, variant: str, profile: str, as_json: bool) -> None:
    """Print the layers of a variant's model: shapes, receptive fields, parameters, multiply-accumulates.

    Multiply-accumulates (MACs) are those of convolutions and fully connected layers, for one image. Stride and
    receptive field are in pixels of the network's input, total over the layers so far.

    \b
    harness summary --study task3 --variant model-2
    """
    loaded = load_study(study)
    counted = summarize_settings(variant_settings(loaded, variant, profile=profile))
    if as_json:
        print_json({"study": loaded.name, "variant": variant, "profile": profile, **asdict(counted)}, indent=None)
        return
    _print(f"{loaded.name} ({profile}), {variant}", counted)


def _print(title: str, counted: Summary) -> None:
    height, width = counted.image_size
    columns = [Column("layer", is_number=False), Column("kind", is_number=False), Column("output")]
    columns += [Column(it, is_optional=True) for it in ("kernel", "stride", "total stride", "receptive field")]
    rows = []
    for row in counted.rows:
        windows = (row.kernel, row.stride, row.total_stride, row.receptive_field)
        cells = ["" if it is None else str(it) for it in windows] + [f"{it:,}" for it in (row.parameters, row.macs)]
        rows.append([row.layer, row.kind, "x".join(map(str, row.output_shape)), *cells])
    rows.append(["total", *[""] * 6, f"{counted.parameters:,}", f"{counted.macs:,}"])
    title = f"{title}, images of {height}x{width}"
    print_grid(Screen(), [*columns, Column("parameters"), Column("MACs")], rows, title=title)
    if counted.trained_parameters < counted.parameters:
        frozen = counted.parameters - counted.trained_parameters
        tell(f"{counted.trained_parameters:,} parameters train, {frozen:,} are frozen.")
