"""A/A: the baseline against itself on disjoint seeds. What is found there is noise, by construction."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.errors import ResultsError
from harness.metrics import Metric
from harness.stats.intervals import clopper_pearson, mean_and_sd, sd_interval, t_interval
from harness.stats.significance import sign_flip_p, t_p_value
from harness.stats.values import metric_values

SPLITS = 1_000
SPLIT_GENERATOR_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFloor:
    """What comparing a variant with itself shows. As the metric is logged; rates are fractions of the splits.

    Attributes:
        num_seeds: finished seeds of the variant. num_pairs: pairs in each comparison, made of 2 * num_pairs of them.
        sd: of one cell between seeds, with its interval; the difference of two independent cells has sqrt(2) times
            this.
        difference, low, high: the first num_pairs seeds against the last ones, in order of seed, with a t interval. It
            should hold 0; where it does not, something drifted between the cells that were trained first and last.
        largest_by_luck: 95% of the splits have a smaller |mean difference|.
        rate_t, rate_sign_flip: share of the splits with p <= alpha. The sign-flip test cannot reject below 6 pairs.
        rate_low, rate_high: interval of rate_t. The splits share their seeds; all of them together are worth at least
            num_seeds / (2 num_pairs) independent comparisons (Hoeffding 1948, variance of a U-statistic), and
            Clopper-Pearson takes that number of trials. Hence wide: many more seeds than pairs make it narrow.
    """

    variant: str
    metric: Metric
    alpha: float
    num_seeds: int
    num_pairs: int
    num_splits: int
    mean: float
    sd: float
    sd_low: float
    sd_high: float
    difference: float
    low: float
    high: float
    largest_by_luck: float
    rate_t: float
    rate_sign_flip: float
    rate_low: float
    rate_high: float


def aa_noise_floor(
    table: pd.DataFrame,
    *,
    variant: str = "baseline",
    metric: str | None = None,
    num_pairs: int | None = None,
    alpha: float = 0.05,
) -> NoiseFloor:
    """Noise sd and observed false-positive rate of the user's own pipeline, from one variant's seeds alone.

    1,000 random splits (fixed generator) into two groups of `num_pairs` seeds, paired at random; both tests on each.

    Args:
        metric: by default the one that the study reports.
        num_pairs: seeds that a comparison of the study has; by default half of the seeds found.

    Raises:
        ResultsError: fewer than four finished seeds, or fewer than 2 num_pairs; unknown variant or metric.
    """
    values = metric_values(table, metric)
    numbers = values.numbers[values.require(variant)]
    numbers = numbers[np.isfinite(numbers)]
    n = numbers.size
    pairs = n // 2 if num_pairs is None else num_pairs
    if pairs < 2 or n < 2 * pairs:
        raise ResultsError(
            f"an A/A comparison needs two groups of at least two seeds; {variant} has {n} finished seeds and"
            f" {max(2 * pairs, 4)} are needed. Train more seeds of it with `harness aa`."
        )
    order = np.random.default_rng(SPLIT_GENERATOR_SEED).permuted(np.tile(np.arange(n), (SPLITS, 1)), axis=1)
    splits = numbers[order[:, :pairs]] - numbers[order[:, pairs : 2 * pairs]]
    rate_t = float(np.mean(t_p_value(splits) <= alpha))
    planned = numbers[:pairs] - numbers[n - pairs :]
    low, high = t_interval(planned)
    mean, sd = (float(x) for x in mean_and_sd(numbers))
    sd_low, sd_high = sd_interval(sd, n)
    independent = n / (2 * pairs)
    rate_low, rate_high = clopper_pearson(rate_t * independent, independent)
    return NoiseFloor(
        variant=variant,
        metric=values.metric,
        alpha=alpha,
        num_seeds=n,
        num_pairs=pairs,
        num_splits=SPLITS,
        mean=mean,
        sd=sd,
        sd_low=sd_low,
        sd_high=sd_high,
        difference=float(planned.mean()),
        low=float(low),
        high=float(high),
        largest_by_luck=float(np.quantile(np.abs(splits.mean(axis=1)), 0.95)),
        rate_t=rate_t,
        rate_sign_flip=float(np.mean(sign_flip_p(splits) <= alpha)),
        rate_low=rate_low,
        rate_high=rate_high,
    )
