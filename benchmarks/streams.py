"""The figure `streams`: what rules of keeping make of streams of proposals whose effects are known.

A world: each proposal does nothing with probability .75, hurts with .15 and helps with .10, by an effect that is drawn
from .5 to 1.5 times the world's; effects add up, and one run has noise of sd 1. A rule spends a budget of runs. Judged
are the value of its champion, and the share of what it kept that does not help. The rules of `judge` are the command's
own functions (`harness.stats.online`); all streams of a line are simulated side by side.

Axes: r streams, n seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from benchmarks.judged import HELPS, HURTS, MDE
from benchmarks.report import Figure
from benchmarks.sample import Aim, Line, OnSample, Sample
from benchmarks.workload import Request
from harness.api.judging import FRESH, LEAST_ROOM, ROOM
from harness.api.pruning import MOST_TESTS
from harness.stats import holm
from harness.stats.online import elond_level, first_decisions, least_seeds
from harness.stats.significance import noninferiority_p
from harness.study.designs.hadamard import hadamard, order_of

BUDGETS = (200, 600, 1_500)
EFFECTS = (0.1, 0.5, 1.0, 2.0)
STREAMS = 40  # a round
MORE = 10  # times as many for the error of `judge`
LATEST = 30  # numbers whose median absolute deviation is taken
EXTRA = 0.3  # of greedy's runs, for screening
PRUNE_SEEDS = 20
ALPHA = 0.05
Numbers = NDArray[np.float64]


@dataclass
class Streams:
    """So many streams under one rule.

    Attributes:
        value: (r,), of each champion. runs: (r,), spent.
        kept: true effects of what each stream kept.
    """

    effect: float
    generator: np.random.Generator
    value: Numbers
    runs: Numbers
    kept: list[list[float]] = field(default_factory=list)

    @classmethod
    def begin(cls, count: int, effect: float, seed: Sequence[int]) -> "Streams":
        generator = np.random.default_rng(seed)
        return cls(effect, generator, np.zeros(count), np.zeros(count), [[] for _ in range(count)])

    def __len__(self) -> int:
        return len(self.value)

    def proposals(self) -> Numbers:
        """(r,): true effects of one proposal each."""
        kind, size = self.generator.random(len(self)), self.effect * self.generator.uniform(0.5, 1.5, len(self))
        return np.where(kind < HELPS, size, np.where(kind < HELPS + HURTS, -size, 0.0))

    def noise(self, *shape: int) -> Numbers:
        return self.generator.normal(size=(len(self), *shape))

    def keep(self, which: NDArray[np.bool_], effects: Numbers) -> None:
        self.value += np.where(which, effects, 0.0)
        for index in np.flatnonzero(which):
            self.kept[index].append(float(effects[index]))

    @property
    def false(self) -> float:
        """The share of all that was kept, over all streams, that does not help."""
        every = np.concatenate([np.array(it) for it in self.kept])
        return float((every <= 0).mean()) if len(every) else 0.0


def greedy(streams: Streams, budget: int) -> None:
    """One run each; kept where it is better than the best number so far."""
    best = streams.noise()
    for _ in range(budget - 1):
        effects = streams.proposals()
        number = streams.value + effects + streams.noise()
        keeps = number > best
        best = np.where(keeps, number, best)
        streams.keep(keeps, effects)
    streams.runs += budget


def noise_floor(streams: Streams, budget: int) -> None:
    """Two runs each; kept where their mean beats the champion's by more than the champion's two runs differ."""
    champion = streams.noise(2)
    for _ in range(budget // 2 - 1):
        effects = streams.proposals()
        number = (streams.value + effects)[:, None] + streams.noise(2)
        keeps = number.mean(axis=1) - champion.mean(axis=1) > np.ptp(champion, axis=1)
        champion = np.where(keeps[:, None], number, champion)
        streams.keep(keeps, effects)
    streams.runs += budget


def bootstrap(streams: Streams, budget: int) -> None:
    """Three runs each; kept where 97.5% of the bootstrapped differences of means are positive."""
    draws = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)  # all 27 resamples of three
    champion = streams.noise(3)
    for _ in range(budget // 3 - 1):
        effects = streams.proposals()
        number = (streams.value + effects)[:, None] + streams.noise(3)
        means, others = number[:, draws].mean(axis=2), champion[:, draws].mean(axis=2)
        keeps = (means[:, :, None] > others[:, None, :]).mean(axis=(1, 2)) >= 0.975
        champion = np.where(keeps[:, None], number, champion)
        streams.keep(keeps, effects)
    streams.runs += budget


def deviation(streams: Streams, budget: int) -> None:
    """One run each; kept where it beats the best number by twice the median absolute deviation of the latest numbers
    since the last champion, of which there must be three."""
    best = streams.noise()
    since = np.full((len(streams), LATEST), np.nan)
    since[:, 0], count = best, np.ones(len(streams), dtype=int)
    rows = np.arange(len(streams))
    for _ in range(budget - 1):
        effects = streams.proposals()
        number = streams.value + effects + streams.noise()
        centre = np.nanmedian(since, axis=1, keepdims=True)
        keeps = (number > best + 2 * np.nanmedian(np.abs(since - centre), axis=1)) & (count >= 3)
        since[rows, count % LATEST] = number
        count += 1
        since[keeps], count[keeps] = np.nan, 1
        since[keeps, 0] = number[keeps]
        best = np.where(keeps, number, best)
        streams.keep(keeps, effects)
    streams.runs += budget


def judge(streams: Streams, budget: int, *, alpha: float, is_stream: bool) -> None:
    """`harness judge --promote` by its own functions: each proposal paired with the champion's cells, which all of one
    reign share; seeds of the next champion are its own."""
    r = len(streams)
    number, kept = np.zeros(r, dtype=int), np.zeros(r, dtype=int)
    room = ROOM * least_seeds(elond_level(alpha, 10_000, 0)) + 1 if is_stream else LEAST_ROOM
    champion, trained = streams.noise(room), np.zeros(r)
    is_open = np.ones(r, dtype=bool)
    while is_open.any():
        number += 1
        levels = np.array([elond_level(alpha, t, k) if is_stream else alpha for t, k in zip(number, kept, strict=True)])
        least = {level: least_seeds(level) for level in set(levels.tolist())}
        most = np.array([min(room, max(LEAST_ROOM, ROOM * least[level])) for level in levels.tolist()])
        effects = streams.proposals()
        improvements = effects[:, None] + streams.noise(room) - champion
        reasons, seeds, _ = first_decisions(improvements, levels, most, MDE)
        keeps = (reasons == 1) & is_open
        spent = seeds + np.maximum(seeds - trained, 0) + np.where(keeps, FRESH, 0)
        is_open &= streams.runs + spent <= budget
        keeps &= is_open
        streams.runs += np.where(is_open, spent, 0)
        trained = np.where(keeps, FRESH, np.maximum(trained, np.where(is_open, seeds, 0)))
        fresh = streams.noise(room)
        champion = np.where(keeps[:, None], fresh, champion)
        kept += keeps
        streams.keep(keeps, effects)


def screened(streams: Streams, budget: int) -> None:
    """Greedy; then what it kept is screened with three tenths of its runs, and what is supported remains: each change
    in half of few variants, and Holm over all of them, as the table of a screening."""
    greedy(streams, budget)
    for index, found in enumerate(streams.kept):
        effects = np.array(found)
        supported, runs = screening(effects, int(EXTRA * budget), streams.generator)
        streams.kept[index] = effects[supported].tolist()
        streams.value[index] = effects[supported].sum()
        streams.runs[index] += runs


def pruned(streams: Streams, budget: int) -> None:
    """Greedy; then what it kept is put in order by a screening with three tenths of its runs, and dropped by
    `harness prune` with the world's effect as the smallest loss that matters."""
    greedy(streams, budget)
    for index, found in enumerate(streams.kept):
        effects = np.array(found)
        gains, _, runs = screened_gains(effects, int(EXTRA * budget), streams.generator)
        left, more = pruning(effects, gains, streams.effect, streams.generator)
        streams.kept[index] = effects[left].tolist()
        streams.value[index] = effects[left].sum()
        streams.runs[index] += runs + more


def pruning(
    effects: Numbers, gains: Numbers, delta: float, generator: np.random.Generator
) -> tuple[NDArray[np.int64], int]:
    """What `prune` leaves, and its runs: sets that get smaller by the least helpful, each against all of them on the
    same fresh seeds, until one may have lost delta."""
    left, at_a_time, order = np.arange(len(effects)), max(1, -(-len(effects) // MOST_TESTS)), np.argsort(gains)
    every, runs = effects.sum() + generator.normal(size=PRUNE_SEEDS), PRUNE_SEEDS * (len(effects) > 0)
    for first in range(0, len(effects), at_a_time):
        smaller = np.sort(order[first + at_a_time :])
        runs += PRUNE_SEEDS
        numbers = effects[smaller].sum() + generator.normal(size=PRUNE_SEEDS)
        if not noninferiority_p(numbers - every, delta) <= ALPHA:
            break
        left = smaller
    return left, runs


def screening(effects: Numbers, budget: int, generator: np.random.Generator) -> tuple[NDArray[np.bool_], int]:
    """Which changes a screening supports as improvements; its runs. Without room nothing is known, and all remain."""
    gains, p, runs = screened_gains(effects, budget, generator)
    return (holm(p) < ALPHA) & (gains > 0) if runs else np.ones(len(effects), dtype=bool), runs


def screened_gains(effects: Numbers, budget: int, generator: np.random.Generator) -> tuple[Numbers, Numbers, int]:
    """Each change's gain and p value by least squares with the variants for the unit, and the runs; zeros, ones and no
    runs where there is no room."""
    size = order_of(len(effects) + 1) if len(effects) else 0
    folds = [1, -1] if 2 * size <= budget else [-1]
    matrix = np.array(hadamard(size))[:, 1 : len(effects) + 1] if size else np.zeros((0, 0))
    levels = np.concatenate([fold * matrix for fold in folds])
    count, degrees = len(levels), len(levels) - 1 - len(effects)
    seeds = budget // max(count, 1)
    if not count or not seeds or degrees < 1:
        return np.zeros(len(effects)), np.ones(len(effects)), 0
    response = (levels + 1) / 2 @ effects + generator.normal(0, 1 / np.sqrt(seeds), count)
    contrasts = 2 * levels.T @ response / count
    fitted = response.mean() + levels @ contrasts / 2
    error = 2 * np.sqrt(((response - fitted) ** 2).sum() / degrees / count)
    return contrasts, 2 * stdtr(degrees, -np.abs(contrasts) / error), seeds * count


RULES: dict[str, Callable[[Streams, int], None]] = {
    "greedy": greedy,
    "two-run noise floor": noise_floor,
    "three-seed bootstrap": bootstrap,
    "median absolute deviation": deviation,
    "judge each .05": lambda streams, budget: judge(streams, budget, alpha=0.05, is_stream=False),
    "judge stream .05": lambda streams, budget: judge(streams, budget, alpha=0.05, is_stream=True),
    "judge stream .2": lambda streams, budget: judge(streams, budget, alpha=0.2, is_stream=True),
    "greedy, then screening": screened,
    "greedy, then prune": pruned,
}
PIPELINE = "greedy, then screening"
PRUNED = "greedy, then prune"


def measure_streams(request: Request, on_sample: OnSample) -> Figure:
    """Value, false share and runs of each rule, by effect and budget; then the error of `judge` over streams of 300."""
    count = STREAMS * request.rounds
    lines: list[Line] = []
    for effect in EFFECTS:
        for budget in BUDGETS:
            of_greedy = np.nan
            for name, rule in RULES.items():
                streams = Streams.begin(count, effect, [int(10 * effect), budget])
                rule(streams, budget)
                value, where = float(streams.value.mean()), f"effect {effect}, {budget:,} runs: {name}"
                of_greedy = value if name == "greedy" else of_greedy
                aims = _aims(of_greedy) if name in (PIPELINE, PRUNED) and effect >= 1 else (None, None, None)
                lines.append(Line(f"{where}: value", "sd", (value,), aims[0]))
                lines.append(Line(f"{where}: false", "share", (streams.false,), aims[1]))
                if name in (PIPELINE, PRUNED):
                    lines.append(Line(f"{where}: runs", "of greedy's", (float(streams.runs.mean()) / budget,), aims[2]))
                on_sample(where, Sample(value))
    lines += error_control(MORE * count, on_sample)
    title = f"rules of keeping on {count} streams each: value of the champion, and what it kept that does not help"
    return Figure("streams", title, lines, [], {})


def _aims(of_greedy: float) -> tuple[Aim, Aim, Aim]:
    return Aim("at_least", round(0.95 * of_greedy, 3)), Aim("at_most", 0.05), Aim("at_most", 1.3)


def error_control(count: int, on_sample: OnSample, length: int = 300) -> list[Line]:
    """False discovery rate of `judge --level stream` over streams of 300, a look after every seed: the mean share, over
    streams, of what was kept that does not help. Worlds: nothing helps; few help much; few help little."""
    lines = []
    for name, effect in {"nothing helps": 0.0, "effects of 1": 1.0, "effects of .5": 0.5}.items():
        for alpha in (0.05, 0.2):
            streams = Streams.begin(count, effect, [7, int(10 * effect), int(100 * alpha)])
            stream_of(streams, length, alpha)
            shares = [np.mean(np.array(it) <= 0) if it else 0.0 for it in streams.kept]
            bound = alpha + 3 * float(np.sqrt(alpha * (1 - alpha) / count))
            aim = Aim("at_most", round(bound, 4))
            lines.append(Line(f"error, {name}, declared {alpha}", "share", (float(np.mean(shares)),), aim))
            kept = float(np.mean([len(it) for it in streams.kept]))
            lines.append(Line(f"error, {name}, declared {alpha}: kept", "a stream", (kept,), None))
            on_sample(f"error, {name}, {alpha}", Sample(float(np.mean(shares))))
    return lines


def stream_of(streams: Streams, length: int, alpha: float) -> None:
    """So many proposals, however many runs they take."""
    r = len(streams)
    kept = np.zeros(r, dtype=int)
    room = ROOM * least_seeds(elond_level(alpha, length, 0)) + 1
    champion = streams.noise(room)
    for number in range(1, length + 1):
        levels = np.array([elond_level(alpha, number, k) for k in kept])
        most = np.array([min(room, max(LEAST_ROOM, ROOM * least_seeds(level))) for level in levels])
        effects = streams.proposals()
        improvements = effects[:, None] + streams.noise(room) - champion
        reasons, seeds, _ = first_decisions(improvements, levels, most, MDE)
        keeps = reasons == 1
        streams.runs += seeds
        kept += keeps
        champion = np.where(keeps[:, None], streams.noise(room), champion)
        streams.keep(keeps, effects)
