"""The templates of pages, and what they share: escaping, prose, the parts that lie beside them. Knows no tables."""

import re
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

PACKAGE = "harness.report"


def environment(*packages: str) -> Environment:
    """Templates of this package, and of others by name: `page.html.j2` is what they all extend."""
    found = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: _found(name, (PACKAGE, *packages))),
    )
    found.filters["prose"] = prose
    return found


def part(name: str, package: str = PACKAGE) -> str:
    """The text of a file that lies in a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def prose(text: str) -> Markup:
    """Escaped text in which `words` between back quotes stand as code, and negative numbers have a minus sign."""
    with_code = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"(?<![^\s(\[])-(?=\d)", "−", with_code))


def _found(name: str, packages: Sequence[str]) -> str | None:
    return next((part(name, it) for it in packages if files(it).joinpath(name).is_file()), None)
