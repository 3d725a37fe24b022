"""`harness new`: a study and its training to begin from."""

import click


@click.command()
@click.argument("name")
@click.option("--script", is_flag=True, help="Training as a command in any language, instead of a Python function.")
def new(name: str, script: bool) -> None:
    """Write a study and its training into this folder: two files that run as they are, to be made your own.

    NAME is the study's, such as my-study. Nothing is overwritten.
    """
    from harness.api.new import new_study

    study, training = new_study(name, script=script)
    click.echo(f"{study}: the study: metrics, baseline, changes.\n{training}: the training that it names.\n\nNext:")
    click.echo(f"    harness try {study}              does it resume, is it reproducible?")
    click.echo(f"    harness ablate --study {study}   which changes help?")
