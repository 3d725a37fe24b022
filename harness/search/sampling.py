"""Which combination to try next, out of those that were not tried yet.

Optuna's samplers repeat themselves on a small space of choices (of 40 suggestions of TPE, 26 were different), and know
nothing of combinations that cannot be. What a sampler suggests is therefore moved to the nearest combination that is
new and possible, so that no trial is spent on a repetition and a search comes to an end.
"""

import random
from collections.abc import Collection, Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from harness.search.choices import Sampler
from harness.search.space import Space
from harness.study.designs.comparisons import Changes


def distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: CategoricalDistribution(space.choices(name)) for name in space.factors}


def make_sampler(
    name: Sampler, space: Space, seen: Collection[Changes], *, seed: int
) -> optuna.samplers.BaseSampler | None:
    """A sampler for one suggestion, a function of the trials so far; None where no possible combination is left.

    `brute-force` goes through all of them, those with few changes first.

    Args:
        seen: combinations not to be suggested.
        seed: of its random draws; another one for each trial, or a search that is continued would repeat itself.
    """
    if next(_new(space.by_distance(), seen), None) is None:
        return None
    if name == "brute-force":
        return _New(None, space, seen, None)
    generator = random.Random(seed)
    inner_seed = generator.getrandbits(31)
    if name == "gp":
        return _New(optuna.samplers.GPSampler(seed=inner_seed), space, seen, generator)
    inner = optuna.samplers.TPESampler(seed=inner_seed, multivariate=True, constant_liar=True)
    return _New(inner, space, seen, generator)


class _New(optuna.samplers.BaseSampler):
    """The nearest new combination to what another sampler suggests.

    While that one is not ready (with fewer than ten trials, neither TPE nor the Gaussian process is), to a random one.
    """

    def __init__(
        self,
        inner: optuna.samplers.BaseSampler | None,
        space: Space,
        seen: Collection[Changes],
        generator: random.Random | None,
    ) -> None:
        self._inner, self._space, self._seen, self._generator = inner, space, seen, generator

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return distributions(self._space)  # all at once: the combination is what is suggested

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        suggested = self._inner.sample_relative(study, trial, search_space) if self._inner else {}
        centre = self._space.changes_of(suggested)
        if centre is None:
            centre = self._space.draw(self._generator) if self._generator else ()
        return dict(self._space.params_of(next(_new(self._space.by_distance(centre, self._generator), self._seen))))

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution) -> Any:
        raise AssertionError("every parameter is sampled together with the others")


def _new(combinations: Iterator[Changes], seen: Collection[Changes]) -> Iterator[Changes]:
    return (changes for changes in combinations if changes not in seen)
