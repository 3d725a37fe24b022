"""Pre-registration: what a study run will test, written down before its first cell, and what was done otherwise since.

`harness plan --freeze` writes it into the manifest, with a hash that an edit of it breaks.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.plan.manifest import Manifest

HASH_LENGTH = 16


def registration(manifest: Manifest, time: str, *, hypothesis: str = "", mde: float | None = None) -> dict[str, Any]:
    """What the manifest will test, with the time and a hash of all of it.

    Args:
        time: ISO 8601.
        mde: the smallest effect that matters, as the reported metric is logged; then a smaller one may be called
            equivalent.
    """
    said: dict[str, Any] = {
        "time": time,
        "family": _family(manifest),
        "settings": {it.name: it.settings for it in manifest.variants},
        "horizon": manifest.horizon,
        "metric": manifest.metrics.report,
        "selects": manifest.metrics.select,
        "hypothesis": hypothesis,
        "mde": mde,
    }
    return said | {"hash": _hash(said)}


def departures(manifest: Manifest, seeds: Sequence[int]) -> list[str]:
    """In what the study run differs from what was written down before its first cell, a phrase each.

    Args:
        seeds: those that have ended.
    """
    return list(_departures(manifest, seeds)) if manifest.frozen else []


def smallest_that_matters(manifest: Manifest) -> float:
    """The margin of equivalence that was declared before the first cell, as the metric is logged; 0 without one."""
    return float(manifest.frozen.get("mde") or 0.0)


def _departures(manifest: Manifest, seeds: Sequence[int]) -> Iterator[str]:
    frozen = manifest.frozen
    if frozen.get("hash") != _hash({name: it for name, it in frozen.items() if name != "hash"}):
        yield "what was written down was edited afterwards: its hash does not fit"
    before, now = list(frozen["family"]), _family(manifest)
    if added := [it for it in now if it not in before]:
        yield f"compared, though not planned: {', '.join(added)}"
    if dropped := [it for it in before if it not in now]:
        yield f"planned, and not compared: {', '.join(dropped)}"
    settings = {it.name: it.settings for it in manifest.variants}
    edited = [name for name, was in frozen["settings"].items() if settings.get(name, was) != was]
    if edited:
        yield f"trained with other settings than planned: {', '.join(edited)}"
    if manifest.metrics.report != frozen["metric"]:
        yield f"reports {manifest.metrics.report} instead of {frozen['metric']}"
    if manifest.metrics.select != frozen["selects"]:
        yield f"selects by {manifest.metrics.select} instead of {frozen['selects']}"
    if len(seeds) != frozen["horizon"]:
        yield f"{len(seeds)} seeds instead of {frozen['horizon']}"


def _family(manifest: Manifest) -> list[str]:
    return [f"{it.design}: {it.label} ({it.variant} against {it.reference})" for it in manifest.comparisons]


def _hash(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:HASH_LENGTH]
