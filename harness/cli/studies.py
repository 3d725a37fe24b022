"""`harness studies`, `harness changes`, `harness validate`: what there is to run, and whether a study file is right."""

import click
from rich.table import Table
from rich.text import Text

from harness.cli.screen import Screen
from harness.study.load import load_study
from harness.study.load import studies as built_in
from harness.study.study import Study


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@click.command()
def studies() -> None:
    """List the built-in studies. A study of your own is a YAML file: pass its path wherever a name goes."""
    table = _table("study", "title", "changes", "profiles")
    for name in built_in():
        study = load_study(name)
        table.add_row(name, study.title, str(len(study.changes)), ", ".join(study.profiles))
    Screen().print(table)


@click.command()
@click.option("--study", help="Only this study: a name, or the path of a YAML file.")
def changes(study: str | None) -> None:
    """List the changes and combinations of the built-in studies, or of one study."""
    console = Screen()
    for name in [study] if study else built_in():
        loaded = load_study(name)
        if loaded.changes:
            console.print(Text.assemble("\n", (loaded.name, "bold"), f": {loaded.title}"))
            console.print(_changes_table(loaded))


def _changes_table(study: Study) -> Table:
    table = _table("change", "group", "what", "sets")
    for change in study.changes:
        settings = (f"{path} = {value}" for path, value in change.overrides.items())
        sets = ", ".join([*([str(change.code)] if change.code else []), *settings])
        on_top = f" (needs {', '.join(change.needs)})" if change.needs else ""
        table.add_row(change.name, change.group, f"{change.summary}{on_top}", sets)
    for combination in study.combinations:
        table.add_row(combination.name, "", combination.summary, " + ".join(combination.changes))
    return table


@click.command()
@click.argument("study")
def show(study: str) -> None:
    """Print a study as one YAML file: what it extends, lists of values and names written out, all settings.

    STUDY is a YAML file or the name of a built-in study. Beside that file, the printed one plans the same cells.
    """
    from harness.study.resolved import resolved_study
    from harness.study.yaml_file import write_yaml

    click.echo(write_yaml(resolved_study(study)), nl=False)


@click.command()
@click.argument("file")
def validate(file: str) -> None:
    """Check a study file and print everything that is wrong with it; exit code 2 if anything is."""
    study = load_study(file)
    counts = f"{len(study.changes)} changes, {len(study.combinations)} combinations, {len(study.profiles)} profiles"
    Screen().print(f"{file}: study {study.name!r} is valid: {counts}.", soft_wrap=True)
