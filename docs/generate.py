"""The pages of the reference, made from the program itself while the site is built: nothing in them can be out of date.

A hook of MkDocs; `commands` and `settings` can be called without it.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args

import click
from pydantic import BaseModel

HEAD = "This page is made from the program itself.\n"


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    for name, make in (("commands", commands), ("settings", settings)):
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    return files


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
    meant, below, rows = _meanings(document), [], []
    for name, field in model.model_fields.items():
        place = f"{path}.{name}" if path else name
        parts = [it for it in _parts(field.annotation) if isinstance(it, type) and issubclass(it, BaseModel)]
        if parts:
            below += [(part, place) for part in parts]
            continue
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        limits = ", ".join(filter(None, map(_limit, field.metadata)))
        kind = f"{_kind(field.annotation)}{f', {limits}' if limits else ''}"
        rows.append(f"| `{place}` | {default} | {kind} | {meant.get(name, '')} |")
    if rows:
        yield "\n".join(["| setting | default | what it may be | meaning |", "|---|---|---|---|", *rows, ""])
    for part, place in below:
        yield from _models(part, place)


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
