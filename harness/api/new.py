"""`new`: a study and a training of one's own to begin from, two files that run as they are."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from harness.errors import OutputError, StudyError

Kind = Literal["function", "script", "lightning", "transformers"]
FRAMEWORKS = ("lightning", "transformers")


def new_study(name: str, *, folder: Path = Path(), kind: Kind = "function") -> tuple[Path, Path]:
    """Writes `NAME.yaml` and the training that it names, `train_NAME.py`.

    Args:
        name: kebab-case, such as `my-study`.
        kind: training as a function, as a command (`script`), or as a function that calls a framework.

    Returns:
        The study's file and that of its training.

    Raises:
        StudyError: not such a name, or the framework is not installed. OutputError: one of the files is there already
            (nothing is written), or cannot be written.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name == "baseline":
        raise StudyError(f"{name!r} is no name for a study; expected small letters and digits joined by -: my-study.")
    if kind in FRAMEWORKS and find_spec(kind) is None:
        raise StudyError(f'{kind} is not installed: pip install "harness[{kind}]".')
    module = f"train_{name.replace('-', '_')}"
    texts = {
        folder / f"{name}.yaml": _filled(f"{kind}.yaml.j2", name, module),
        folder / f"{module}.py": _filled(f"{kind}.py.j2", name, module),
    }
    there = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if there:
        raise OutputError(
            f"{' and '.join(there)}: {'are' if len(there) > 1 else 'is'} there already, and nothing was written. "
            "Choose another name, or another folder."
        )
    for path, text in texts.items():
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}).") from None
    study, training = texts
    return study, training


def _filled(template: str, name: str, module: str) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    texts = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
    return texts.get_template(template).render(name=name, module=module)
