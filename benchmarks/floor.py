"""The floor: forward, backward and step on one resident batch; no images are loaded, nothing is measured or saved.

Autocast to the device's native precision, channels-last, ReLU before pooling, eager. As most people would write it, so
a better arithmetic beats it. With `switches` it runs under the harness's process-wide switches (freed memory is kept,
denormals count as zero), which tells what these contribute.
"""

from contextlib import nullcontext

import torch
from torch.nn import functional as F

from benchmarks.peer import build_network, build_optimizer, normalized, wait_for
from benchmarks.processes import Facts, Ready
from benchmarks.workload import Workload
from harness.trainers.images.arithmetic import environment

WARM_UP_STEPS = 10
EPOCHS = 3  # of steps: half a minute, because a machine's speed varies from one moment to the next


def train_one_batch(ready: Ready, workload: Workload, variant: str, switches: bool) -> Facts:
    """As many steps on one batch as some epochs have."""
    settings, device = workload.settings(variant), torch.device(workload.device)
    batch_size = settings.training.batch_size
    arrays = workload.images()
    network = build_network(settings).to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(settings, network.parameters())
    pixels = torch.from_numpy(arrays.train_images[:batch_size].copy()).permute(0, 3, 1, 2)
    inputs = normalized(pixels).to(device, memory_format=torch.channels_last)
    labels = torch.from_numpy(arrays.train_labels[:batch_size].copy()).to(device)
    use_autocast = workload.precision == "bfloat16"

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=use_autocast):
            loss = F.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()

    num_steps = EPOCHS * (round(workload.num_images * (1 - settings.training.validation_fraction)) // batch_size)
    ours = environment(threads=torch.get_num_threads(), device=device, precision=workload.precision)
    with ours if switches else nullcontext():
        for _ in range(WARM_UP_STEPS):
            step()
        wait_for(device)
        ready()
        for _ in range(num_steps):
            step()
        wait_for(device)
    return {"images": num_steps * batch_size}
