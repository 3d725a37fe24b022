"""A cell: one variant's fully resolved settings plus one seed; the unit of work, with the hash that is its identity.

The key covers the trainer's recipe, the whole resolved settings (not what differs from the defaults: an edited default
must not give old results a new meaning), the seed, and what the settings name but do not hold (fingerprints of data,
weights, sources).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import StoreError
from harness.trainers.registry import DEFAULT, trainer_from_json
from harness.trainers.trainer import Settings, SettingsError, Trainer

FORMAT = 2  # of a specification; 1 knew one trainer only
KEY_LENGTH = 16  # hex digits: 64 bits; a store of a million cells has a collision with probability 3e-8


@dataclass(frozen=True, slots=True)
class Cell:
    """Settings, seed and what they name; made by `make_cells`, which computes the key.

    Attributes:
        key: the identity, `KEY_LENGTH` hex digits.
        fingerprints: sorted (what, hash) pairs.
    """

    key: str
    settings: Any
    seed: int
    fingerprints: tuple[tuple[str, str], ...]
    trainer: Trainer = field(compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """A specification from which any process can run this cell: `from_json` gives an equal cell."""
        return {
            "format": FORMAT,
            "key": self.key,
            "trainer": self.trainer.to_json(),
            "recipe": self.trainer.identity,
            "seed": self.seed,
            "fingerprints": dict(self.fingerprints),
            "settings": self.settings.tree(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Cell":
        """Raises StoreError for a cell that this version would train in another way: it is another cell here."""
        written = data.get("format", 1)
        if written not in (1, FORMAT):
            raise StoreError(
                f"cell {data.get('key', '?')}: its specification has format {written}, this harness reads up to "
                f"{FORMAT}. Install the version that wrote it; nothing is damaged."
            )
        trainer = trainer_from_json(data.get("trainer", {"kind": DEFAULT}))
        try:
            settings = trainer.parse(data["settings"])
        except SettingsError as error:
            raise StoreError(
                f"cell {data['key']}: this version does not know all of its settings ({'; '.join(error.problems)}). "
                "Its result stays as it is; plan the study again for new cells."
            ) from None
        (cell,) = make_cells(trainer, settings, [data["seed"]], data["fingerprints"])
        if cell.key != data["key"]:
            recipes = f"recipe {data.get('recipe')!r} there, {trainer.identity!r} here"
            raise StoreError(
                f"cell {data['key']}: this version would train something else from its specification ({recipes}), as "
                f"cell {cell.key}. The old cell's result stays as it is; plan the study again for new ones."
            )
        return cell


def make_cells(
    trainer: Trainer, settings: Settings, seeds: Iterable[int], fingerprints: Mapping[str, str]
) -> list[Cell]:
    """A cell for each seed.

    Args:
        settings: resolved by the trainer: the same word must not mean other numbers on other machines.
        fingerprints: what the settings name but do not hold, by role, to a hash.
    """
    named = tuple(sorted(fingerprints.items()))
    head = _head(trainer.identity, settings.identity(), named)
    return [Cell(_key(head, seed), settings, seed, named, trainer) for seed in seeds]


def key_of(specification: Mapping[str, Any]) -> str:
    """The key that what `Cell.to_json` gave belongs to, without asking its trainer: right where that one leaves nothing
    of the settings out of their identity.

    >>> key_of({"recipe": 1, "settings": {"rate": 0.5}, "fingerprints": {}, "seed": 0})
    '1cbc0b892384cf26'
    """
    named = tuple(sorted(specification["fingerprints"].items()))
    return _key(_head(specification.get("recipe"), specification["settings"], named), specification["seed"])


def _head(recipe: Any, settings: Any, named: Any) -> "hashlib._Hash":
    identity = json.dumps([recipe, settings, named], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(identity.encode())


def _key(head: "hashlib._Hash", seed: int) -> str:
    digest = head.copy()
    digest.update(f"|seed={seed}".encode())
    return digest.hexdigest()[:KEY_LENGTH]
