"""`harness studies`, `harness changes`, `harness validate`: what there is to run, and whether a study file is right."""

from collections.abc import Iterator

import click
from rich.text import Text

from harness.cli.grid import Column, print_grid
from harness.cli.screen import Screen
from harness.study.load import Outline, load_study, outline
from harness.study.load import studies as built_in
from harness.study.study import Study
from harness.texts import counted


@click.command()
def studies() -> None:
    """List the built-in studies. A study of your own is a YAML file: pass its path wherever a name goes."""
    loaded = [outline(name) for name in built_in()]
    rows = [(it.name, str(len(it.changes)), it.title, ", ".join(it.profiles)) for it in loaded]
    columns = (Column("study", is_number=False), Column("changes"), *_words("title", "profiles"))
    print_grid(Screen(), columns, rows)


@click.command()
@click.option("--study", help="Only this study: a name, or the path of a YAML file.")
def changes(study: str | None) -> None:
    """List the changes and combinations of the built-in studies, or of one study."""
    console = Screen()
    for name in [study] if study else built_in():
        loaded = load_study(name) if study else outline(name)
        if loaded.changes:
            console.print(Text.assemble("\n", (loaded.name, "bold"), f": {loaded.title}"))
            print_grid(console, CHANGES, list(_change_rows(loaded)))


def _words(*headings: str, is_optional: bool = False) -> tuple[Column, ...]:
    return tuple(Column(it, is_number=False, is_optional=is_optional) for it in headings)


CHANGES = (*_words("change"), *_words("group", is_optional=True), *_words("what"), *_words("sets", is_optional=True))


def _change_rows(study: Study | Outline) -> Iterator[tuple[str, ...]]:
    for change in study.changes:
        settings = (f"{path} = {value}" for path, value in change.overrides.items())
        sets = ", ".join([*([str(change.code)] if change.code else []), *settings])
        on_top = f" (needs {', '.join(change.needs)})" if change.needs else ""
        yield change.name, change.group, f"{change.summary}{on_top}", sets
    for combination in study.combinations:
        yield combination.name, "", combination.summary, " + ".join(combination.changes)


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
    parts = {"change": study.changes, "combination": study.combinations, "profile": study.profiles}
    counts = ", ".join(counted(len(part), noun) for noun, part in parts.items())
    console = Screen()
    console.print(f"{file}: study {study.name!r} is valid: {counts}.")
    for note in study.trainer.doubts():
        console.print(f"note: {note}", style="dim")
