"""Random streams: each purpose of a cell has its own, derived from (seed, purpose).

With one shared stream, switching dropout on would reshuffle every batch, and "paired by seed" would mean little. The
streams of shuffling and augmentation are derived anew for each epoch, so they need no state in a checkpoint. All draws
happen on the CPU, so that CPU and CUDA see the same ones; dropout alone draws where the model computes.
"""

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2^63) for one purpose: the first 63 bits of SHA-256 over the parts.

    Neighbouring seeds give unrelated streams, and no two purposes share one.
    """
    parts = "|".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(parts.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *purpose: str | int) -> torch.Generator:
    """A generator on the CPU at the start of the stream of (seed, purpose)."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
