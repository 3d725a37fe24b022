"""No accuracy lost: the textbook loop in float32 and the harness's cell, on real images, over the same seeds."""

from pathlib import Path

from benchmarks.processes import Facts, Ready
from benchmarks.textbook import train_by_protocol
from harness.cell import make_cells
from harness.hardware import native_precision
from harness.image_cache import ImageArrays
from harness.settings import ImageFolder, Settings, with_overrides
from harness.sources import data_fingerprint, load_images
from harness.train import train_cell


def textbook_accuracy(ready: Ready, folder: Path, cache: Path, device: str, epochs: int, seed: int) -> Facts:
    """Test accuracy, a fraction, of the textbook loop's baseline at its lowest validation loss."""
    import torch

    settings, arrays = _problem(folder, cache, epochs, "float32")
    ready()
    return train_by_protocol(settings, arrays, torch.device(device), seed=seed)


def harness_accuracy(ready: Ready, folder: Path, cache: Path, device: str, epochs: int, seed: int) -> Facts:
    """The same of a cell in the device's native precision."""
    import torch

    settings, arrays = _problem(folder, cache, epochs, native_precision(device))
    (cell,) = make_cells(settings, [seed], {"data": data_fingerprint(settings.data, cache=cache)})
    place = cache / cell.key
    place.mkdir(parents=True, exist_ok=True)
    (place / "checkpoint.pt").unlink(missing_ok=True)  # of a run before: this one trains from the start
    ready()
    result = train_cell(cell, arrays, place, device=torch.device(device), on_event=lambda event: None)
    assert result.is_finished, result
    return {"images": result.num_steps * settings.training.batch_size, "test_accuracy": result.test_accuracy}


def _problem(folder: Path, cache: Path, epochs: int, precision: str) -> tuple[Settings, ImageArrays]:
    data = ImageFolder(path=str(folder.absolute()))
    settings = with_overrides(Settings(), {"training.precision": precision, "training.max_epochs": epochs})
    settings = settings.model_copy(update={"data": data})
    return settings, load_images(data, cache=cache)
