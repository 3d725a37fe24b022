"""Which test examples a change gains and loses, as plain values: the data step of both drawers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import ResultsError
from harness.report.tables import Tables
from harness.stats.examples import ExampleEffect

CLEAREST = 10  # of each side
MOST_PIXELS = 64  # a side of a thumbnail


@dataclass(frozen=True)
class Thumbnail:
    """One test example.

    Attributes:
        pixels: uint8 (H, W, 3), at most MOST_PIXELS a side. label: its class.
        before, after: seeds of `Gallery.num_seeds` that got it right, without and with the change.
    """

    place: int
    pixels: NDArray[np.uint8]
    label: str
    before: int
    after: int


@dataclass(frozen=True)
class Gallery:
    """The examples whose outcome a change alters most: right in more seeds, the clearest first; and in fewer."""

    change: str
    reference: str
    num_seeds: int
    num_examples: int
    num_gained: int
    num_lost: int
    gained: tuple[Thumbnail, ...]
    lost: tuple[Thumbnail, ...]


def gallery_data(tables: Tables, change: str = "") -> Gallery:
    """The clearest gains and losses of one change of the main design; by default of the one that the headline names.

    Raises:
        ResultsError: cells kept no examples, or there are no pictures of them on this machine.
    """
    family = tables.main_family
    change = change or tables.headline.variant or (str(family.effects["variant"].iloc[0]) if family else "")
    if family is None or change not in family.sides:
        raise ResultsError("there is no change whose examples could be compared.")
    variant, reference = family.sides[change]
    found = tables.example_effect(variant, reference)
    if found is None:
        raise ResultsError(
            f"{variant} and {reference} have no seed of which both kept which examples they got right; training does "
            "so by run.finish(..., examples={...})."
        )
    gained, lost = clearest(found)
    pictures = tables.load_pictures([*gained, *lost])
    if not pictures:
        raise ResultsError("there are no pictures of the test examples, or not on this machine.")
    shown = [
        _thumbnail(place, pixels, label, found)
        for place, (pixels, label) in zip([*gained, *lost], pictures, strict=True)
    ]
    return Gallery(
        change,
        reference,
        len(found.seeds),
        found.num_examples,
        found.num_gained,
        found.num_lost,
        tuple(shown[: len(gained)]),
        tuple(shown[len(gained) :]),
    )


def clearest(effect: ExampleEffect) -> tuple[Sequence[int], Sequence[int]]:
    """Places of the examples that are gained and lost in most seeds, the clearest first, of equals the first."""
    gained = np.argsort(-effect.changes, kind="stable")[:CLEAREST]
    lost = np.argsort(effect.changes, kind="stable")[:CLEAREST]
    return (
        [int(it) for it in gained if effect.changes[it] > 0],
        [int(it) for it in lost if effect.changes[it] < 0],
    )


def _thumbnail(place: int, pixels: NDArray[np.uint8], label: str, effect: ExampleEffect) -> Thumbnail:
    step = -(-max(pixels.shape[:2]) // MOST_PIXELS)
    n = len(effect.seeds)
    before, after = (round(float(it[place]) * n) for it in (effect.reference_right, effect.variant_right))
    return Thumbnail(place, np.ascontiguousarray(pixels[::step, ::step]), label, before, after)
