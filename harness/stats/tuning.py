"""What tuning brings: the expected best of a number of trials.

Dodge et al. 2019, "Show your work: improved reporting of experimental results"; here without bias, over the trials that
were made and without replacement.
"""

from collections.abc import Sequence
from math import comb

import numpy as np

from harness.stats.values import FloatArray


def expected_best(chosen_by: Sequence[float], shown: Sequence[float]) -> FloatArray:
    """The mean of `shown` at the best of b trials, over all choices of b of the B trials, for b = 1, ..., B.

    sum over i >= b of C(i - 1, b - 1) / C(B, b) v_(i), where v_(i) is what the trial shows that has rank i.

    Args:
        chosen_by: larger is better; a trial that failed has -inf. shown: the value reported, NaN where it failed.

    Returns:
        (B,); NaN where a choice of b trials may hold failed ones alone.
    """
    order = np.argsort(np.asarray(chosen_by, dtype=np.float64), kind="stable")
    values, count = np.asarray(shown, dtype=np.float64)[order], len(chosen_by)
    return np.array(
        [
            sum(comb(i - 1, b - 1) / comb(count, b) * values[i - 1] for i in range(b, count + 1))
            for b in range(1, count + 1)
        ]
    )
