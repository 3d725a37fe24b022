"""Optimizer steps on a CUDA device by everybody, without validation or files: how long one takes, in microseconds.

Each contender makes steps for some seconds after its warm-up; the context, compiling and capturing are before it.
"""

import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.peer import build_network, build_optimizer, normalized
from benchmarks.processes import Facts, Ready
from benchmarks.workload import Workload
from harness.trainers.images import train as training
from harness.trainers.images.arithmetic import environment
from harness.trainers.images.data.sources import ImageArrays
from harness.trainers.images.graph import Steps, capture
from harness.trainers.images.settings import Settings

CHUNK = 200  # steps between two looks at the clock
WARM_UP_STEPS = 20
Step = Callable[[], object]


def floor_steps(ready: Ready, workload: Workload, variant: str, way: str, seconds: float) -> Facts:
    """Forward, backward and step on one resident batch, as most people would write it.

    Args:
        way: `eager`; `graph`, the same captured; `reduce-overhead`, by `torch.compile` in that mode.
    """
    settings, device = workload.settings(variant), torch.device(workload.device)
    arrays, batch_size = workload.images(), settings.training.batch_size
    network = build_network(settings).to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(settings, network.parameters())
    pixels = torch.from_numpy(arrays.train_images[:batch_size].copy()).permute(0, 3, 1, 2)
    inputs = normalized(pixels).to(device, memory_format=torch.channels_last)
    labels = torch.from_numpy(arrays.train_labels[:batch_size].copy()).to(device)
    began = time.perf_counter()
    called = torch.compile(network, mode=way) if way == "reduce-overhead" else network

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            loss = F.cross_entropy(called(inputs), labels)
        loss.backward()
        optimizer.step()

    facts = _timed(ready, step, device, seconds, is_captured=way == "graph")
    return facts | {"preparation_seconds": facts.pop("started_at") - began}


def resident_steps(ready: Ready, workload: Workload, variant: str, seconds: float) -> Facts:
    """The loop of fast CIFAR programs: images on the device, all of the network in bfloat16, shuffled by the device."""
    settings, device = workload.settings(variant), torch.device(workload.device)
    arrays, batch_size = workload.images(), settings.training.batch_size
    network = build_network(settings).to(device, torch.bfloat16, memory_format=torch.channels_last)
    optimizer = build_optimizer(settings, network.parameters())
    images = normalized(torch.from_numpy(arrays.train_images.copy()).permute(0, 3, 1, 2).to(device)).to(torch.bfloat16)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(arrays.train_labels.copy()).to(device)
    order = iter(())

    def step() -> None:
        nonlocal order
        rows = next(order, None)
        if rows is None:
            order = iter(torch.randperm(len(images), device=device).split(batch_size)[:-1])
            rows = next(order)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(images[rows]).float(), labels[rows])
        loss.backward()
        optimizer.step()

    facts = _timed(ready, step, device, seconds)
    del facts["started_at"]
    return facts


def harness_steps(ready: Ready, workload: Workload, variant: str, seconds: float) -> Facts:
    """The harness's own step, images and augmentation included: `eager`, and replayed as a `graph`."""
    settings, device = workload.settings(variant), torch.device(workload.device)
    facts: Facts = {}
    with environment(threads=1, device=device, precision=workload.precision):
        for way in ("graph", "eager"):
            step = _harness_step(settings, workload.images(), device, way)
            timed = _timed(ready if not facts else lambda: None, step, device, seconds)
            facts |= {way: timed["microseconds"]}
    return facts


def _harness_step(settings: Settings, arrays: ImageArrays, device: torch.device, way: str) -> Step:
    parts = training.build_parts(settings, arrays, seed=0, device=device)
    position = training.Position()
    position.loss_sum, position.num_correct = position.loss_sum.to(device), position.num_correct.to(device)
    parts.replica.network.train()
    steps = Steps(
        lambda: training._train_step(parts, position),
        lambda: training._tensors_of_a_step(parts, position),
        device=device,
        eager_because="asked for" if way == "eager" else "",
    )
    done = 0

    def step() -> None:
        nonlocal done
        if done % parts.batches.steps_per_epoch == 0:
            parts.batches.seek(done)
        done += steps.make(parts.batches.steps_per_epoch - done % parts.batches.steps_per_epoch)
        if done == WARM_UP_STEPS and steps.mode != way:
            raise RuntimeError(f"steps were made by {steps.mode}: {steps.reason}")

    return step


def _timed(ready: Ready, step: Step, device: torch.device, seconds: float, *, is_captured: bool = False) -> Facts:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    if is_captured:
        step = capture(step, device)
        for _ in range(WARM_UP_STEPS):
            step()
    torch.cuda.synchronize()
    ready()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(CHUNK):
            step()
        torch.cuda.synchronize()
        count += CHUNK
    taken = time.perf_counter() - began
    return {"steps": count, "microseconds": 1e6 * taken / count, "started_at": began}
