"""A cell: one variant's fully resolved settings plus one seed; the unit of work, with the hash that is its identity.

The key covers the whole resolved settings (not what differs from the defaults: an edited default must not give old
results a new meaning), the seed, what the settings name but do not hold (fingerprints of data, weights, plug-ins), and
`RECIPE`, which is bumped whenever the meaning of training changes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.trainers.images.settings import Settings

RECIPE = 1
KEY_LENGTH = 16  # hex digits: 64 bits; a store of a million cells has a collision with probability 3e-8


@dataclass(frozen=True, slots=True)
class Cell:
    """Settings, seed and what they name; made by `make_cells`, which computes the key.

    Attributes:
        key: the identity, `KEY_LENGTH` hex digits.
        fingerprints: sorted (what, hash) pairs; always holds `data`.
    """

    key: str
    settings: Settings
    seed: int
    fingerprints: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """A specification from which any process can run this cell: `from_json` gives an equal cell."""
        return {
            "key": self.key,
            "recipe": RECIPE,
            "seed": self.seed,
            "fingerprints": dict(self.fingerprints),
            "settings": self.settings.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Cell":
        settings = Settings.model_validate(data["settings"])
        (cell,) = make_cells(settings, [data["seed"]], data["fingerprints"])
        assert cell.key == data["key"], f"cell {data['key']} reads back as {cell.key}: other recipe or edited file"
        return cell


def make_cells(settings: Settings, seeds: Iterable[int], fingerprints: Mapping[str, str]) -> list[Cell]:
    """A cell for each seed.

    Args:
        settings: resolved: precision is not `auto` (the same word would mean other numbers on other machines).
        fingerprints: what the settings name but do not hold, by role (`data`, `weights`, `plugin`) to a hash.
    """
    assert settings.training.precision != "auto", "precision must be resolved before a cell gets its key"
    assert "data" in fingerprints
    named = tuple(sorted(fingerprints.items()))
    identity = json.dumps([RECIPE, settings.identity(), named], sort_keys=True, separators=(",", ":"), allow_nan=False)
    head = hashlib.sha256(identity.encode())
    return [Cell(_key(head, seed), settings, seed, named) for seed in seeds]


def _key(head: "hashlib._Hash", seed: int) -> str:
    digest = head.copy()
    digest.update(f"|seed={seed}".encode())
    return digest.hexdigest()[:KEY_LENGTH]
