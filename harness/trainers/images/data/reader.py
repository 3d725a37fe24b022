"""Reading the images of a folder: bytes to pixels, and bytes to the folder's fingerprint, in one pass.

16-bit grey keeps its upper 8 bits, transparency lies on white, all else is Pillow's conversion to RGB; orientation tags
are ignored, as by torchvision's ImageFolder. Images of another size are squeezed to a square (bilinear, antialiased):
nothing is cropped away, at the price of the aspect ratio.

Does not belong here: which files there are (`image_folder.py`), where pixels are kept (`image_cache.py`).

Axes: N images, H rows, W columns, C channels (red, green, blue).
"""

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.errors import DataError
from harness.trainers.images.data.folder import Listing, list_folder, raise_problems

if TYPE_CHECKING:
    from PIL import Image

DECODER = 1  # version of the rules above; fingerprints hold it
CHUNK = 256  # images a task: enough to make the hand-over free, few enough to stop soon

Pixels = npt.NDArray[np.uint8]


class FolderReader:
    """Reads a listed folder once, front to back: images as `chunks`, and along the way what its `fingerprint` needs.

    An image that cannot be read leaves zeros and a problem behind, so that `fingerprint` can name all of them.
    """

    def __init__(self, listing: Listing, image_size: int) -> None:
        self._listing = listing
        self._image_size = image_size
        self._content = hashlib.sha256(f"image-folder {DECODER}".encode())
        self._problems: list[str] = []

    def chunks(self, split: str) -> Iterator[Pixels]:
        """The images of a split, (N, H, W, C), in the order of the listing. Training images come before test images.

        Threads: Pillow releases the interpreter while it decodes and resizes.
        """
        names = self._listing.files(split)
        parts = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
        workers = max(2, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as executor:
            pending: deque[Future[_Decoded]] = deque()
            for part in parts:
                pending.append(executor.submit(_decode, self._listing.root, part, self._image_size))
                if len(pending) > workers:  # not all at once: decoded chunks wait in memory
                    yield self._taken(pending.popleft())
            while pending:
                yield self._taken(pending.popleft())

    def fingerprint(self) -> str:
        """Short hash of class names, file names and file bytes, when all chunks were taken.

        Raises:
            DataError: images that cannot be read, or the folder was changed while it was read.
        """
        raise_problems(self._problems)
        if list_folder(self._listing.root).stamp != self._listing.stamp:
            raise DataError(f"{self._listing.root}: files were changed while they were read. Run the command again.")
        return self._content.hexdigest()[:16]

    def _taken(self, future: "Future[_Decoded]") -> Pixels:
        decoded = future.result()
        self._content.update(decoded.identity)
        self._problems += decoded.problems
        return decoded.pixels


@dataclass
class _Decoded:
    pixels: Pixels
    identity: bytes = b""
    problems: list[str] = field(default_factory=list)


def _decode(root: Path, names: Sequence[str], image_size: int) -> _Decoded:
    decoded = _Decoded(np.zeros((len(names), image_size, image_size, 3), dtype=np.uint8))
    identity = []
    for row, name in enumerate(names):
        try:
            content = (root / name).read_bytes()
            identity += [os.fsencode(name), b"\0", hashlib.sha256(content).digest()]
            decoded.pixels[row] = decode_image(content, image_size)
        except DataError as error:
            decoded.problems.append(f"{root / name}: {error}")
        except OSError as error:
            decoded.problems.append(f"{root / name}: cannot be read ({error.strerror}).")
    decoded.identity = b"".join(identity)
    return decoded


def decode_image(content: bytes, image_size: int) -> Pixels:
    """An encoded image as pixels, (H, W, C), by the rules at the top of this module.

    Raises:
        DataError: it is not an image of the known kinds, or is damaged.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "BMP", "WEBP")) as file:
            image = _as_rgb(file)
            if image.size != (image_size, image_size):
                image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except UnidentifiedImageError:
        raise DataError("is no PNG, JPEG, BMP or WebP image, whatever its name says. Replace or remove it.") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"is damaged ({error}). Replace or remove it.") from error


def _as_rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page
    return image if image.mode == "RGB" else image.convert("RGB")
