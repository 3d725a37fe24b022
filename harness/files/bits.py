"""Right or wrong, example by example: a file with one bit an example, 1.25 kB for 10,000.

The first line is JSON, name to number of examples; behind it the bits of each name, the first example in the highest
bit of its first byte, each name beginning a new byte.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXAMPLES_FILE = "examples.bits"  # in a cell's folder


def packed(by_name: Mapping[str, "NDArray[np.bool_]"]) -> bytes:
    """The content of the file."""
    import numpy as np

    head = json.dumps({name: len(bits) for name, bits in by_name.items()})
    return b"".join([head.encode(), b"\n", *(np.packbits(bits).tobytes() for bits in by_name.values())])


def unpacked(content: bytes) -> dict[str, "NDArray[np.bool_]"]:
    """What `packed` was given.

    Raises:
        ValueError: the content is something else.
    """
    import numpy as np

    head, _, rest = content.partition(b"\n")
    counts = json.loads(head)
    if not isinstance(counts, dict) or not all(isinstance(it, int) and it > 0 for it in counts.values()):
        raise ValueError("its first line does not say how many examples there are")
    if len(rest) != sum((count + 7) // 8 for count in counts.values()):
        raise ValueError("it has another length than its first line says")
    found, place = {}, 0
    for name, count in counts.items():
        size = (count + 7) // 8
        found[name] = np.unpackbits(np.frombuffer(rest[place : place + size], dtype=np.uint8), count=count) > 0
        place += size
    return found
