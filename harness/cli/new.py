"""`harness new`: a study and its training to begin from."""

from typing import cast

import click

from harness.cli.sentences import tell


@click.command()
@click.argument("name")
@click.option(
    "--script", "kind", flag_value="script", help="Training as a command in any language, instead of a Python function."
)
@click.option("--lightning", "kind", flag_value="lightning", help="Training by a LightningModule.")
@click.option("--transformers", "kind", flag_value="transformers", help="Training by Hugging Face's Trainer.")
def new(name: str, kind: str | None) -> None:
    """Write a study and its training into this folder: two files that run as they are, to be made your own.

    NAME is the study's, such as my-study. Nothing is overwritten.
    """
    from harness.api.new import Kind, new_study

    study, training = new_study(name, kind=cast("Kind", kind or "function"))
    tell(f"{study}: the study: metrics, baseline, changes.\n{training}: the training that it names.\n\nNext:")
    tell(f"    harness try {study}\n        does it resume, is it reproducible?")
    tell(f"    harness ablate --study {study}\n        which changes help?")
