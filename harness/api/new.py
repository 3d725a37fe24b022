"""`new`: a study and a training of one's own to begin from, two files that run as they are."""

import re
from pathlib import Path

from harness.errors import OutputError, StudyError


def new_study(name: str, *, folder: Path = Path(), script: bool = False) -> tuple[Path, Path]:
    """Writes `NAME.yaml` and the training that it names, `train_NAME.py`.

    Args:
        name: kebab-case, such as `my-study`.
        script: training as a command instead of a function.

    Returns:
        The study's file and that of its training.

    Raises:
        StudyError: not such a name. OutputError: one of the files is there already (nothing is written), or cannot be
            written.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name == "baseline":
        raise StudyError(f"{name!r} is no name for a study; expected small letters and digits joined by -: my-study.")
    module, kind = f"train_{name.replace('-', '_')}", "script" if script else "function"
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
