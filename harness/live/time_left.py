"""How long a study still takes, as a range: from the cells that have ended, and how many train at a time."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, pvariance, variance

LEAST_MEASURED = 2  # ended cells without which nothing is said
WIDTH = 2.0  # sd on either side


def time_left(
    waiting: Iterable[str], training: Mapping[str, float], measured: Mapping[str, Sequence[float]], workers: int
) -> tuple[float, float] | None:
    """Seconds until the last cell ends, from at least to at most; None where too little has ended to tell.

    A cell takes what the ended cells of its variant took on average, or all of them where none of its own has. The work
    left over is known up to the spread of single cells, of those means, and between variants that nobody has measured.
    Divided by the number of workers it is the least that can be left; the cell that is taken last adds at most its own
    length (Graham 1969: a list of tasks takes at most sum / w + (1 - 1/w) longest).

    Args:
        waiting: the variant of each cell that nobody has begun, in any order.
        training: the cells that train now, `variant/anything` to the seconds that they have trained.
        measured: variant to the seconds of its cells that have ended, none of them 0.
    """
    every = [seconds for found in measured.values() for seconds in found]
    if len(every) < LEAST_MEASURED or workers < 1:
        return None
    means = [mean(found) for found in measured.values() if found]
    usual = mean(means)
    between = variance(means) if len(means) > 1 else pvariance(every)
    relative = _relative_variance(measured)
    work, spread, longest = 0.0, 0.0, 0.0
    begun = Counter(name.partition("/")[0] for name in training)
    for variant, count in (Counter(waiting) + begun).items():
        known = measured.get(variant)
        each = mean(known) if known else usual
        one = relative * each**2
        work += count * each
        spread += count * one + count**2 * (one / len(known) if known else between)
        longest = max(longest, each + math.sqrt(one))
    for name, elapsed in training.items():
        known = measured.get(name.partition("/")[0])
        work -= min(elapsed, mean(known) if known else usual)
    at_most = work + WIDTH * math.sqrt(spread)
    at_least = max(work - WIDTH * math.sqrt(spread), 0.0)
    return at_least / workers, at_most / workers + (1 - 1 / workers) * longest


def _relative_variance(measured: Mapping[str, Sequence[float]]) -> float:
    """Of a cell's time around its variant's mean, in squares of that mean; 1% where no variant has two cells."""
    pairs = [(variance(it) / mean(it) ** 2, len(it) - 1) for it in measured.values() if len(it) > 1 and mean(it)]
    degrees = sum(freedom for _, freedom in pairs)
    return sum(value * freedom for value, freedom in pairs) / degrees if degrees else 0.01
