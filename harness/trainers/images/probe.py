"""How long an optimizer step takes here: `python -m harness.trainers.images.probe DEVICE < settings.json`.

A process of its own, for it imports torch, and what it takes of a device is given back. The images are noise of the
right size; the step is that of training. Prints seconds a step.
"""

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from harness.cuda import cuda_ids, seen_alone
from harness.trainers.images.cost import image_side
from harness.trainers.images.settings import Settings, parse_settings

if TYPE_CHECKING:
    import torch

    from harness.trainers.images.data.sources import ImageArrays

LEAST_SECONDS, LEAST_STEPS, MOST_STEPS = 1.0, 3, 200
WARM_UP_STEPS = 8  # the first ones choose kernels; on CUDA they capture a graph
PATIENCE_SECONDS = 60.0


def step_seconds(settings: Settings, device: str) -> float | None:
    """Seconds of one optimizer step with these settings on this device; None where it cannot be had in a minute."""
    name, variables = seen_alone(device, cuda_ids())
    command = [sys.executable, "-m", "harness.trainers.images.probe", name]
    given = json.dumps(settings.model_dump(mode="json"))
    try:
        said = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env=os.environ | variables
        )
        return float(said.stdout) if said.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def measure(settings: Settings, device: str) -> float:
    """`step_seconds`, in this process."""
    import torch

    from harness.trainers.images import train
    from harness.trainers.images.arithmetic import environment

    training, place = settings.training, torch.device(device)
    assert training.precision != "auto"
    with environment(threads=training.threads, device=place, precision=training.precision):
        parts, position = train.build_parts(settings, _noise(settings), seed=0, device=place), train.Position()
        position.loss_sum, position.num_correct = position.loss_sum.to(place), position.num_correct.to(place)
        parts.replica.network.train()
        steps = train._steps(parts, position)

        def make(count: int) -> None:
            for _ in range(count):
                left = parts.seek(position.step)
                position.step += steps.make(left)

        make(min(WARM_UP_STEPS, MOST_STEPS))
        _wait(place)
        made, began = 0, time.perf_counter()
        while made < LEAST_STEPS or (time.perf_counter() - began < LEAST_SECONDS and made < MOST_STEPS):
            make(1)
            made += 1
        _wait(place)
        return (time.perf_counter() - began) / made


def _wait(place: "torch.device") -> None:
    import torch

    if place.type == "cuda":
        torch.cuda.synchronize(place)


def _noise(settings: Settings) -> "ImageArrays":
    """Images for a few steps an epoch, and as few as may be for validation."""
    import numpy as np

    from harness.trainers.images.data.sources import ImageArrays

    training, side, classes = settings.training, image_side(settings), tuple("0123456789")
    count = max(100, int(8 * training.batch_size / (1 - training.validation_fraction)) + 1)
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = np.arange(count) % len(classes)
    return ImageArrays(pixels, labels, pixels[:100], labels[:100], classes)


if __name__ == "__main__":
    print(measure(parse_settings(json.load(sys.stdin)), sys.argv[1]))
