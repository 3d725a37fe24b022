"""How long a cell takes where none has ended: from what `harness try` found, or from a few steps made for that.

What a probe finds is noted in the store, for every command, by machine and settings.
"""

import contextlib
import hashlib
import json
import platform
from pathlib import Path

from harness.errors import StoreError
from harness.files.atomic import write_atomically
from harness.hardware import cpu_name
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate, Sample
from harness.plan.plan import Plan
from harness.store.tried import read_tried

WORTH_A_PROBE_SECONDS = 300.0  # expected by a guess; a probe takes some five


def sampled(plan: Plan, root: Path, device: str) -> Sample | None:
    """What is known of the baseline's first cell without one that has ended: from the disk alone."""
    cell, kind = plan.variants[0].cells[0], device.partition(":")[0]
    with contextlib.suppress(StoreError):  # damaged: who reads it for its own sake says so
        tried = read_tried(root, plan.study.name, plan.fingerprints)
        if tried and tried.profile == plan.profile and tried.device.partition(":")[0] == kind and tried.seconds > 0:
            return Sample(cell, tried.seconds, "what `harness try` took")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # not there, or damaged: it is made again
        return Sample(cell, float(json.loads(_path(root, cell, kind).read_text())["seconds"]), "a probe of some steps")
    return None


def is_worth_a_probe(expected: Estimate) -> bool:
    return not expected.measured and not expected.sampled and expected.seconds > WORTH_A_PROBE_SECONDS


def probe(plan: Plan, root: Path, device: str) -> bool:
    """Makes a few steps of the baseline now, for `sampled`; False where the trainer has no way to."""
    cell = plan.variants[0].cells[0]
    seconds = cell.trainer.probed_seconds(cell.settings, device=device)
    if seconds is None:
        return False
    path = _path(root, cell, device.partition(":")[0])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"seconds": seconds}))
    except OSError:  # it will be said when something that matters is to be written there
        return False
    return True


def _path(root: Path, cell: Cell, kind: str) -> Path:
    machine = [platform.node(), cpu_name(), kind]
    asked = json.dumps([machine, cell.trainer.identity, cell.settings.identity()], sort_keys=True)
    return root / "probes" / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
