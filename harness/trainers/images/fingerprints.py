"""Fingerprints of what settings name but do not hold: images, a file of weights, a plug-in's source.

They are part of a cell's identity, so that other images under the same path are other cells.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path

from harness.errors import DataError, StudyError
from harness.trainers.images.data.sources import data_fingerprint
from harness.trainers.images.settings import Data, Model, PluginModel, ResNet18, Settings


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
            try:
                self._known[path] = hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()[:16]
            except OSError as error:
                raise DataError(f"{setting}: {path} cannot be read ({error.strerror}).") from None
        return self._known[path]


def _module_file(factory: str) -> str:
    module = factory.partition(":")[0]
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a console script does not look in the current folder by itself
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.origin:
        raise StudyError(f"model.factory: there is no module {module!r} on Python's path or in the current folder.")
    return spec.origin
