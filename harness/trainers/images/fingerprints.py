"""Fingerprints of what settings name but do not hold: images, a file of weights, a plug-in's source.

They are part of a cell's identity, so that other images under the same path are other cells.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from harness.errors import DataError, StudyError
from harness.trainers.images.data.sources import data_fingerprint
from harness.trainers.images.settings import Data, Model, PluginModel, ResNet18, Settings
from harness.trainers.importing import find_new_files


class Fingerprints:
    """Looks each thing up once; an `ImageTrainer` has one.

    Args:
        cache: the folder of decoded images.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._known: dict[Data | str, str] = {}

    def __call__(self, settings: Settings) -> dict[str, str]:
        """By role: `data` always; `weights` for a file of weights; `plugin` for a model of the user's own.

        Raises:
            DataError: the images or weights are not there or cannot be read.
            StudyError: the plug-in's module cannot be found.
        """
        data = settings.data
        if data not in self._known:
            self._known[data] = data_fingerprint(data, cache=self.cache)
        return {"data": self._known[data]} | self._of_model(settings.model)

    def _of_model(self, model: Model) -> dict[str, str]:
        if isinstance(model, ResNet18) and model.weights.startswith("file:"):
            return {"weights": self._of_file(model.weights.removeprefix("file:"), "model.weights")}
        if isinstance(model, PluginModel):
            return {"plugin": self._of_file(_module_file(model.factory), "model.factory")}
        return {}

    def _of_file(self, path: str, setting: str) -> str:
        if path not in self._known:
            self._known[path] = _hashed(os.path.expanduser(path), setting)
        return self._known[path]


def _hashed(path: str, setting: str) -> str:
    """Raises DataError where this is no regular file: a device or a pipe may never end."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise DataError(f"{setting}: {path} cannot be read (no regular file).")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{setting}: {path} cannot be read ({reason}).") from None


def _module_file(factory: str) -> str:
    """The file of a plug-in's module, found without importing it or the packages that it lies in."""
    module = factory.partition(":")[0]
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a console script does not look in the current folder by itself
    spec = _find_spec(module)
    if spec is None or not spec.origin or not spec.has_location:
        raise StudyError(
            f"model.factory: there is no file of a module {module!r} on Python's path or in the current folder."
        )
    return spec.origin


def _find_spec(module: str) -> ModuleSpec | None:
    """As `importlib.util.find_spec`, which imports the packages above a module: nothing of the user's runs here."""
    find_new_files()
    path: Sequence[str] | None = None
    spec = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        found = (finder.find_spec(name, path, None) for finder in sys.meta_path)
        spec = next((it for it in found if it is not None), None) if parts[depth - 1] else None
        if spec is None or (spec.submodule_search_locations is None and depth < len(parts)):
            return None
        path = spec.submodule_search_locations and list(spec.submodule_search_locations)
    return spec
