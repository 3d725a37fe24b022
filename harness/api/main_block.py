"""Whether a script that starts worker processes is fit for it: each of them imports it, and would call us again."""

import ast
import multiprocessing
import sys
from pathlib import Path
from types import FrameType

from harness.errors import StudyError

_GUARDS = {"__name__", "parent_process", "current_process"}  # what a condition asks that is false in a worker


def check_main_block() -> None:
    """Raises StudyError where this call comes from the script's top level, outside of `if __name__ == "__main__":`; or
    from a worker that imports the script, which would wait for what its parent holds.

    Without this, every worker would die as it imports the script, and its cell be recorded as failed.
    """
    path, line = _called_from()
    is_worker = getattr(multiprocessing.current_process(), "_inheriting", False)
    if is_worker or (path and line and not _is_guarded(path, line)):
        raise StudyError(
            f"{f'{path}, line {line}: ' * bool(line)}this starts worker processes, each of which imports the script "
            "and would come here again. Put the call below `if __name__ == '__main__':`, as Python asks of whatever "
            "starts processes."
        )


def _called_from() -> tuple[str, int]:
    """The script that Python runs, and the line of its top level that we are called from; empty where there is none,
    as in a notebook."""
    main = sys.modules["__main__"]
    path, line = getattr(main, "__file__", None) or "", 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename == path and frame.f_globals is vars(main):
            line = frame.f_lineno
        frame = frame.f_back
    return path, line


def _is_guarded(path: str, line: int) -> bool:
    """Whether the line stands in an `if` that asks which process this is; a script that cannot be read may be fit."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    around = (it for it in ast.walk(tree) if isinstance(it, ast.If) and it.lineno <= line <= (it.end_lineno or 0))
    asked = (it for condition in around for it in ast.walk(condition.test))
    return any({getattr(it, "id", ""), getattr(it, "attr", "")} & _GUARDS for it in asked)
