"""What one can choose for a search, by name; importable without Optuna, for `--help`."""

from typing import Literal, get_args

Sampler = Literal["tpe", "gp", "brute-force"]
Prune = Literal["none", "wilcoxon", "halving"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
PRUNES: tuple[Prune, ...] = get_args(Prune)
