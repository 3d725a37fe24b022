"""Pictures of the test examples of a study run, for its report."""

import logging
from collections.abc import Sequence
from typing import Any

from harness.errors import HarnessError
from harness.plan.manifest import Manifest
from harness.trainers.registry import trainer_from_json

log = logging.getLogger(__name__)


def pictures(manifest: Manifest, places: Sequence[int]) -> list[tuple[Any, str]]:
    """uint8 (H, W, 3) and the class of these test examples; nothing where examples are no images, or are not here."""
    try:
        trainer = trainer_from_json(manifest.trainer)
        settings = trainer.parse(manifest.baseline)
        if trainer.fingerprints(settings).get("data") != manifest.fingerprints.get("data"):
            return []  # other data lie there now
        return trainer.example_pictures(settings, places)
    except HarnessError as error:  # a report of a store that came from elsewhere
        log.debug("no pictures: %s", error)
        return []
