"""The table of `harness.plan.power`: `python -m benchmarks.power_table` simulates it anew (ten minutes) and prints it.

A cell is the effect, in sd of the per-seed differences, that Westfall and Young's procedure finds with power .8 at .05:
of m changes against one baseline one has the effect, normal noise, the same in every variant. Every simulated study
yields the least effect with which its change is claimed; their .8 quantile is the cell.
"""

import sys

import numpy as np
from numpy.typing import NDArray

SEEDS = (6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 30)
SIZES = (1, 2, 3, 5, 9, 15, 30, 100)
STUDIES = 4_000
FLIPS = 2_000
ALPHA, POWER = 0.05, 0.8
LARGEST = 40.0

Array = NDArray[np.float64]


def least_effect(noise: Array, signs: Array) -> float:
    """The least effect on the first row, by bisection, with which its adjusted p is at most alpha."""
    low, high = 0.0, LARGEST
    n = noise.shape[1]
    others = shares(noise[1:], signs).max(axis=1, initial=0.0)
    while high - low > 0.002 * high:
        middle = (low + high) / 2
        mine = shares(noise[:1] + middle, signs)[:, 0]
        claimed = np.mean(np.maximum(mine, others) >= mine[0] - 1e-9) <= ALPHA and noise[0].mean() + middle > 0
        low, high = (low, middle) if claimed else (middle, high)
    assert n > 5
    return high


def shares(differences: Array, signs: Array) -> Array:
    """An increasing function of |t|, (flips, members)."""
    sums: Array = signs @ differences.T
    return sums**2 / (differences.shape[1] * (differences**2).sum(axis=1))


def sign_vectors(n: int, generator: np.random.Generator) -> Array:
    """All of them up to 11 seeds, else a sample; the first is all ones."""
    if n <= 11:
        bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
        return 1.0 - 2.0 * bits
    return np.concatenate([np.ones((1, n)), 1.0 - 2.0 * generator.integers(0, 2, (FLIPS, n))])


def cell(n: int, m: int) -> float:
    generator = np.random.default_rng(1_000 * n + m)
    studies = STUDIES if m < 100 else STUDIES // 4
    least = []
    for _ in range(studies):
        noise = (generator.normal(size=(m, n)) - generator.normal(size=n)) / np.sqrt(2)
        least.append(least_effect(noise, sign_vectors(n, generator)))
    return float(np.quantile(least, POWER))


def main() -> None:
    for n in SEEDS:
        row = [cell(n, m) for m in SIZES]
        sys.stdout.write(f"    {n}: ({', '.join(f'{it:.2f}' for it in row)}),\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
