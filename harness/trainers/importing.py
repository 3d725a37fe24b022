"""Importing the user's code where other threads import meanwhile, as the one does that delivers to MLflow.

Before Python 3.12 the collector may let another thread run within any allocation: what threads share (`sys.modules`,
the finders of folders) is copied in one step before anything loops over it.
"""

import importlib
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, StudyError
from harness.names import suggestion

_importing = threading.RLock()


@contextmanager
def importing(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Imports in the block look in `folder` first, and find no module of these names that came from elsewhere.

    Args:
        names: of top-level modules and packages: those of the user's code, never one that is installed.
    """
    folder, wanted = folder.resolve(), frozenset(names)
    with _importing:
        for name, module in sys.modules.copy().items():
            if name.partition(".")[0] in wanted and not _is_from(module, folder):
                del sys.modules[name]
        first = str(folder)
        sys.path = [first, *sys.path]  # another list: a loop of another thread over the one that was would skip some
        find_new_files()
        try:
            yield
        finally:
            rest = list(sys.path)
            with suppress(ValueError):  # the user's code took it away
                rest.remove(first)
            sys.path = rest


def find_new_files() -> None:
    """Has imports see files that are new, as `importlib.invalidate_caches` does where no other thread imports."""
    for finder in sys.path_importer_cache.copy().values():
        if finder is not None and hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()


def _is_from(module: Any, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    places = [file] if file else list(getattr(module, "__path__", []))
    return any(folder in Path(it).resolve().parents or Path(it).resolve() == folder for it in places)


def import_target(target: str) -> Any:
    """What `module:name` names.

    Raises:
        StudyError: it cannot be imported, or there is no such name.
    """
    module, _, name = target.partition(":")
    try:
        found = importlib.import_module(module)
    except HarnessError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise StudyError(f"{target}: the module cannot be imported ({type(error).__name__}: {error}).") from error
    if not hasattr(found, name):
        hint = suggestion(name, vars(found))
        raise StudyError(f"{target}: {module} ({getattr(found, '__file__', '?')}) has no {name!r}.{hint}")
    return getattr(found, name)
