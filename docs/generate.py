"""The pages of the reference, made from the program itself while the site is built: nothing in them can be out of date.

A hook of MkDocs; `commands` and `settings` can be called without it.
"""

import inspect
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import BaseModel

FOUND = Path(__file__).parent / "gallery"
NOTEBOOK = FOUND / "digits.ipynb"
EXAMPLES = Path(__file__).parents[1] / "examples"
HEAD = "This page is made from the program itself.\n"


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    made = {
        "examples": gallery,
        "notebook": notebook,
        "reference/commands": commands,
        "reference/study": study,
        "reference/settings": settings,
    }
    for name, make in made.items():
        files.append(File.generated(config, f"{name}.md", content=make()))
    return files


def gallery() -> str:
    """The examples: what each is about, what it found, and all its files."""
    intro = (
        "Complete projects: copy the files of one into an empty folder, and `harness ablate --study NAME.yaml`. "
        "The tables and pictures are what that printed and drew."
    )
    return "\n".join(
        ["# Examples\n", f"{intro}\n", *(_example(it) for it in sorted(EXAMPLES.iterdir()) if it.is_dir())]
    )


def _example(folder: Path) -> str:
    """One example; its table and its picture, where it was run for this page, are in `docs/gallery`."""
    name = folder.name
    study, *code = sorted(folder.glob("*.yaml")) + sorted(folder.glob("*.py"))
    text = study.read_text()
    title = re.search(r"^title: (.*)$", text, re.MULTILINE)
    comment = re.match(r"# (.*)", text)
    assert title, f"{study}: no title"
    assert comment, f"{study}: no comment that says what it is"
    parts = [f"## {title[1]}\n", f"{comment[1]}\n"]
    kept = FOUND / f"{name}.txt"
    if kept.is_file():
        parts += [f"```text\n{kept.read_text().rstrip()}\n```\n", f"![{title[1]}: effects](gallery/{name}.png)\n"]
    for path in (study, *code):
        block = f"```{'yaml' if path.suffix == '.yaml' else 'python'}\n{path.read_text().rstrip()}\n```"
        indented = block.replace("\n", "\n    ")
        parts.append(f'??? note "{path.name}"\n\n    {indented}\n')
    return "\n".join(parts)


def notebook() -> str:
    """The example from a notebook, cell by cell, with what came out when it ran."""
    parts = []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for data in (it["data"] for it in cell.get("outputs", ()) if "data" in it):
            shown = "".join(data["text/html"]).replace(' border="1" class="dataframe"', "")
            shown = re.sub(r"<style.*?</style>|\n\s*", "", shown, flags=re.DOTALL)
            parts.append(f"<div>{shown}</div>")
    parts.append(f"The notebook itself: [digits.ipynb](gallery/{NOTEBOOK.name}).")
    return "\n\n".join(parts) + "\n"


def study() -> str:
    """Every key of a study's file."""
    from harness.study.changes import Change
    from harness.study.claimed import Claimed
    from harness.study.nuisance import Nuisance
    from harness.study.study import Combination, Profile, Published, Study

    intro = (
        "How a study is written is shown in [three trainings](../own.md) and [your own training](../training.md), "
        "which has `trainer`, `metrics`, `select`, `report`, `baseline`, `extends`, `drop` and `fixed`, too. Here are "
        "the other keys, and those of each entry below them.\n"
    )
    rows = _rows(Study, "", leave_out=("name", "trainer", "baseline", "built_on"))
    rows = [row.replace("| required |", "| the file's name |") for row in rows]
    tables = [
        *(_models(Change, "changes")), *(_models(Combination, "combinations")), *(_models(Profile, "profiles")),
        *(_models(Published, "published")), *(_models(Claimed, "claims")), *(_models(Nuisance, "nuisance")),
    ]  # fmt: skip
    return "\n".join([f"# A study's file\n\n{HEAD}\n{intro}", _table(rows), *tables])


def commands() -> str:
    """Every command with its help, as `harness COMMAND --help` prints it."""
    from harness.cli import cli

    return "\n".join([f"# Commands\n\n{HEAD}", *_help(cli, "harness", 1)])


def _help(command: click.Command, name: str, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    yield f"## {name}\n" if level > 1 else ""
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            if found:
                yield from _help(found, f"{name} {sub}", level + 1)


def settings() -> str:
    """Every setting of the trainer of images: its path, its default, what it may be, what it means."""
    from harness.trainers.images.settings import Settings

    intro = "A study of images sets these in its `baseline` and in the `overrides` of its changes, by dotted path.\n"
    return "\n".join([f"# Settings of the image trainer\n\n{HEAD}\n{intro}", *_models(Settings, "")])


def _models(model: type[BaseModel], path: str) -> Iterator[str]:
    document = inspect.getdoc(model) or ""
    title = f"## `{path}`" if path else ""
    kind = model.model_fields.get("kind") or model.model_fields.get("name")
    chosen = f": `{kind.default}`" if kind and path and isinstance(kind.default, str) else ""
    yield f"{title}{chosen}\n\n{_escaped(document.partition('Attributes:')[0].strip())}\n"
    if rows := _rows(model, path):
        yield _table(rows)
    for name, field in model.model_fields.items():
        for part in _models_in(field.annotation):
            yield from _models(part, f"{path}.{name}" if path else name)


def _table(rows: list[str]) -> str:
    return "\n".join(["| setting | default | what it may be | meaning |", "|---|---|---|---|", *rows, ""])


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    return [it for it in _parts(annotation) if isinstance(it, type) and issubclass(it, BaseModel)]


def _rows(model: type[BaseModel], path: str, *, leave_out: Sequence[str] = ()) -> list[str]:
    """A row of the table for each setting that is no group of settings."""
    meant, rows = _meanings(inspect.getdoc(model) or ""), []
    for name, field in model.model_fields.items():
        place = f"{path}.{name}" if path else name
        if name in leave_out or _models_in(field.annotation):
            continue
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        limits = ", ".join(filter(None, map(_limit, field.metadata)))
        kind = f"{_kind(field.annotation)}{f', {limits}' if limits else ''}"
        rows.append(f"| `{place}` | {default} | {kind} | {meant.get(name, '')} |")
    return rows


def _parts(annotation: Any) -> Iterator[Any]:
    """A type, or the members of a union, without what annotates them."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for it in inner:
        yield from _parts(it)


def _kind(annotation: Any) -> str:
    words = re.sub(r"<class '(\w+)'>", r"\1", str(annotation).replace("NoneType", "None"))
    found = re.findall(r"'[\w-]+'", words.partition("Literal[")[2])
    if "Literal[" in words:
        return " or ".join(f"`{it}`" for it in found)
    whole = re.match(r"\s*(tuple|dict)\[", words)
    if whole:
        return {"tuple": "a list", "dict": "a mapping"}[whole[1]]
    names = list(dict.fromkeys(re.findall(r"\b(bool|int|float|str|tuple|dict|None)\b", words)))
    return " or ".join(names) or "see below"


def _limit(constraint: Any) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return ", ".join(f"{sign} {getattr(constraint, name)}" for name, sign in signs.items() if hasattr(constraint, name))


def _meanings(document: str) -> dict[str, str]:
    """What the docstring's `Attributes` say, by name."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in document.partition("Attributes:")[2].splitlines():
        start = re.match(r"    ([\w, ]+): (.*)", line)
        if start:
            names = [it.strip() for it in start[1].split(",")]
            found |= dict.fromkeys(names, _escaped(start[2]))
        elif line.startswith("        "):
            found |= {name: f"{found[name]} {_escaped(line.strip())}" for name in names}
    return found


def _escaped(text: str) -> str:
    text = text.replace("|", "\\|")
    return "`".join(it.replace("<", "&lt;") if place % 2 == 0 else it for place, it in enumerate(text.split("`")))
