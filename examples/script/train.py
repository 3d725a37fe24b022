"""A plain PyTorch script that knows nothing of the harness: options in, lines of JSON out.

By hand: `python train.py --lr 0.1 --seed 3`. Under `harness ablate --study script.yaml` the environment names the file
for metrics and a folder that is kept between attempts; by hand it prints.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--norm", choices=["true", "false"], default="false")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    inputs, labels = spirals(600)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))  # the same split for all seeds
    fit, validation, test = order[:300], order[300:450], order[450:]
    middle = [nn.BatchNorm1d(options.hidden)] if options.norm == "true" else []
    network = nn.Sequential(nn.Linear(2, options.hidden), *middle, nn.ReLU(), nn.Linear(options.hidden, 2))
    optimizer = torch.optim.SGD(network.parameters(), options.lr, momentum=0.9)

    checkpoint = Path(os.environ.get("HARNESS_FOLDER", ".")) / "last.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["epoch"]

    for epoch in range(start, options.epochs):
        network.train()
        shuffled = fit[torch.randperm(300, generator=torch.Generator().manual_seed(1000 * options.seed + epoch))]
        for batch in shuffled.split(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        tell({"step": epoch + 1, "val/accuracy": accuracy(network, inputs[validation], labels[validation])})
        if "HARNESS_FOLDER" in os.environ:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
            tell({"checkpoint": checkpoint.name})
    tell({"final": True, "test/accuracy": accuracy(network, inputs[test], labels[test])})


def spirals(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two spirals with noise, one and a half turns each."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    radius = torch.rand(count, generator=random) ** 0.5
    angle = 9.0 * radius + torch.pi * labels
    noise = 0.06 * torch.randn(count, 2, generator=random)
    return 3 * (torch.stack([radius * angle.cos(), radius * angle.sin()], 1) + noise), labels


@torch.no_grad()
def accuracy(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    return (network(inputs).argmax(1) == labels).double().mean().item()


def tell(line: dict) -> None:
    if "HARNESS_METRICS" not in os.environ:
        print(json.dumps(line), file=sys.stderr)
        return
    with open(os.environ["HARNESS_METRICS"], "a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
