"""The figure `evidence`: how often a study of useless changes claims something, by what people do with it; and power.

Studies are made-up results tables with a manifest; what is asked of them is what `harness ablate`, `confirm` and the
report ask (`report.tables.families`, `stats.decide`), look after look. `before` is the same study under the rules of
0.2: Holm over the changes that one call asked for, every look at its full level.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.report import Figure
from benchmarks.sample import Aim, Line, OnSample, Sample
from benchmarks.workload import Request
from harness.metrics import Metric, Metrics
from harness.plan.manifest import Manifest, RunComparison, RunVariant
from harness.plan.power import seeds_from_pilots
from harness.report.tables import Tables, families
from harness.stats import confirmation_alpha, decide, holm, paired_effect, sign_flip_p
from harness.store.load import RESULT_DTYPES

ALPHA, STUDIES = 0.05, 200  # studies a round
LOOKS = (3, 5, 8, 10, 15, 20)
CLAIMS = ("improves", "hurts", "equivalent")
SCORE = Metric.declared("test/score", "maximize")

Numbers = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Numbers]


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    return generator.normal(size=shape)


def left_skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    """Mean 0, sd 1, skewness -2: trainings that now and then stop early."""
    return 1.0 - generator.exponential(size=shape)


@dataclass(frozen=True)
class World:
    """m changes and a baseline on n seeds: (1 + m, n), the baseline first."""

    m: int
    variants: Draw = normal
    baseline: Draw = normal
    helped: int = 0
    effect: float = 0.0  # in sd of the difference

    def draw(self, n: int, generator: np.random.Generator) -> Numbers:
        cells = np.concatenate([self.baseline(generator, (1, n)), self.variants(generator, (self.m, n))])
        cells[1 : 1 + self.helped] += self.effect * np.sqrt(2)
        return cells


def table_of(cells: Numbers, manifest: Manifest) -> pd.DataFrame:
    """The results table of these cells; NaN is a cell that is not planned."""
    variants, n = cells.shape
    rows = [(v, s) for v in range(variants) for s in range(n) if np.isfinite(cells[v, s])]
    names = [manifest.variants[v].name for v, _ in rows]
    table = pd.DataFrame({name: pd.Series(index=range(len(rows)), dtype=kind) for name, kind in RESULT_DTYPES.items()})
    table = table.assign(
        study="made-up",
        variant=names,
        changes=["" if name == "baseline" else name for name in names],
        seed=[s for _, s in rows],
        key=[f"{v}/{s}" for v, s in rows],
        status="finished",
        seconds=1.0,
    )
    table[SCORE.name] = [float(cells[v, s]) for v, s in rows]
    table.attrs["manifest"] = manifest
    return table


def manifest_of(m: int, horizon: int) -> Manifest:
    names = ["baseline", *(f"c{j}" for j in range(m))]
    return Manifest(
        id="made-up",
        study="made-up",
        title="Made up",
        profile="standard",
        exploratory=False,
        metrics=Metrics((SCORE, Metric.declared("val/score", "maximize")), select="val/score", report=SCORE.name),
        trainer={},
        fingerprints={},
        baseline={},
        variants=tuple(RunVariant(it, () if it == "baseline" else (it,), "", "", {}) for it in names),
        comparisons=tuple(RunComparison("add-one", it, it, "baseline") for it in names[1:]),
        horizon=horizon,
    )


def manifest_of_five_designs(m: int, horizon: int) -> Manifest:
    """m changes alone; all of them together, all but one, one after another, and each two of the first four."""
    single = manifest_of(m, horizon)
    names = [f"c{j}" for j in range(m)]
    sets: dict[tuple[str, ...], str] = {(): "baseline"}
    compared: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = []
    full = tuple(names)
    compared += [("add-one", it, (it,), ()) for it in names]
    compared += [("combinations", "all", full, ())]
    compared += [("leave-one-out:all", it, full, tuple(other for other in names if other != it)) for it in names]
    compared += [("path:all", it, full[: j + 1], full[:j]) for j, it in enumerate(names)]
    pairs = [(a, b) for j, a in enumerate(names[:4]) for b in names[j + 1 : 4]]
    compared += [("pairs", "+".join(it), it, ()) for it in pairs]
    for _, _, variant, reference in compared:
        for changes in (variant, reference):
            sets.setdefault(changes, "+".join(changes))
    return replace(
        single,
        variants=tuple(RunVariant(name, changes, "", "", {}) for changes, name in sets.items()),
        comparisons=tuple(RunComparison(design, label, sets[a], sets[b]) for design, label, a, b in compared),
    )


def five_designs(m: int, n: int, generator: np.random.Generator, effect: float = 0.0) -> pd.DataFrame:
    """The results of a run of five designs; c0 alone helps by `effect` sd of a difference, in no combination."""
    manifest = manifest_of_five_designs(m, n)
    cells = World(len(manifest.variants) - 1, helped=1, effect=effect).draw(n, generator)
    return table_of(cells, manifest)


def claims_in_five(n: int, generator: np.random.Generator) -> bool:
    """`ablate` with five designs: any claim in any table of effects, or in that of interactions."""
    tables = Tables(five_designs(5, n, generator), load_curves=pd.DataFrame)
    frames = [*(family.effects for family in tables.families.values()), tables.interactions]
    return any(frame["verdict"].isin(CLAIMS).any() for frame in frames)


def claims_in_five_before(n: int, generator: np.random.Generator) -> bool:
    table = five_designs(5, n, generator)
    numbers = table.pivot(index="variant", columns="seed", values=SCORE.name)
    by_design: dict[str, list[Numbers]] = {}
    for it in table.attrs["manifest"].comparisons:
        by_design.setdefault(it.design, []).append((numbers.loc[it.variant] - numbers.loc[it.reference]).to_numpy())
    return any((holm(sign_flip_p(np.array(rows))) <= ALPHA).any() for rows in by_design.values())


def finds_among_five(m: int, n: int, effect: float, generator: np.random.Generator) -> bool:
    return bool(claims(five_designs(m, n, generator, effect))["c0"])


def claims(table: pd.DataFrame) -> pd.Series:
    """By change: whether the table of effects claims something."""
    effects = families(table)["add-one"].effects
    return effects.set_index("variant")["verdict"].isin(CLAIMS)


def looks_again(world: World, looks: Sequence[int], horizon: int, generator: np.random.Generator) -> bool:
    """Who looks after so many seeds, and stops at the first claim."""
    cells, manifest = world.draw(looks[-1], generator), manifest_of(world.m, horizon)
    for n in looks:
        manifest = manifest.looked_at(range(n), "", "")
        if claims(table_of(cells[:, :n], manifest)).any():
            return True
    return False


def looks_again_before(world: World, looks: Sequence[int], generator: np.random.Generator) -> bool:
    cells = world.draw(looks[-1], generator)
    differences = cells[1:] - cells[0]
    return any((holm(sign_flip_p(differences[:, :n])) <= ALPHA).any() for n in looks)


def asks_for_the_best(world: World, generator: np.random.Generator) -> bool:
    """`ablate --only BEST` after fifteen: the study run holds all of them, whoever is asked for."""
    table = table_of(world.draw(10, generator), manifest_of(world.m, 10))
    effects = families(table)["add-one"].effects
    return effects["verdict"].iloc[0] in CLAIMS


def asks_for_the_best_before(world: World, generator: np.random.Generator) -> bool:
    cells = world.draw(10, generator)
    differences = cells[1:] - cells[0]
    return bool(sign_flip_p(differences[np.argmax(differences.mean(axis=1))]) <= ALPHA)


def confirms_each(world: World, generator: np.random.Generator) -> bool:
    """`confirm --variant` for each of fifteen: by 10 fresh seeds, or as many as can decide."""
    for number in range(1, world.m + 1):
        alpha = confirmation_alpha(number, ALPHA)
        n = max(10, int(np.ceil(1 - np.log2(alpha))))
        table = table_of(World(1).draw(n, generator), manifest_of(1, n))
        if decide(paired_effect(table, "c0"), alpha).outcome == "confirmed":
            return True
    return False


def confirms_each_before(world: World, generator: np.random.Generator) -> bool:
    cells = [World(1).draw(10, generator) for _ in range(world.m)]
    return any(sign_flip_p(it[1] - it[0]) <= ALPHA and (it[1] - it[0]).mean() > 0 for it in cells)


def finds(world: World, n: int, generator: np.random.Generator) -> bool:
    return bool(claims(table_of(world.draw(n, generator), manifest_of(world.m, n)))["c0"])


def finds_from_pilots(m: int, effect: float, generator: np.random.Generator) -> bool:
    pilots = World(m).draw(3, generator)
    sd = float(np.sqrt((pilots[1:] - pilots[0]).var(axis=1, ddof=1).mean()))
    n = seeds_from_pilots(effect * np.sqrt(2), sd, 2 * m, m=m)
    return finds(World(m, helped=1, effect=effect), n, generator)


def race(world: World, effect: float, horizon: int, generator: np.random.Generator) -> tuple[float, bool, int]:
    """By the rules of `harness.api.racing`: the share of helpful changes found, whether anything false was claimed, and
    the cells trained."""
    from harness.api.racing import DECIDED, planned_looks

    cells, manifest = world.draw(horizon, generator), manifest_of(world.m, horizon)
    trained = np.full_like(cells, np.nan)
    is_open, last = np.ones(1 + world.m, dtype=bool), 0
    for n in planned_looks(horizon):
        trained[is_open, last:n], last = cells[is_open, last:n], n
        manifest = manifest.looked_at(range(n), "", "")
        effects = families(table_of(trained[:, :n], manifest))["add-one"].effects.set_index("variant")
        for j in np.flatnonzero(is_open[1:]):
            row = effects.loc[f"c{j}"]
            is_open[1 + j] = not (row["verdict"] in DECIDED or row["high"] < effect * np.sqrt(2))
        if not is_open[1:].any():
            break
    claimed = effects["verdict"].isin(DECIDED)
    helped = [f"c{j}" for j in range(world.helped)]
    return float(claimed[helped].mean()), bool(claimed.drop(helped).any()), int(np.isfinite(trained).sum())


class Lines:
    """Lines of a figure, each the mean over so many studies, study `index` of line `number` drawn from both."""

    def __init__(self, request: Request, on_sample: OnSample) -> None:
        self.studies, self.on_sample = min(STUDIES * request.rounds, request.largest), on_sample
        self.lines: list[Line] = []

    @property
    def error(self) -> Aim:
        """At most .05, and three standard errors."""
        return Aim("at_most", round(ALPHA + 3 * float(np.sqrt(ALPHA * (1 - ALPHA) / self.studies)), 4))

    def power(self, least: float) -> Aim:
        return Aim("at_least", least - 3 * float(np.sqrt(least * (1 - least) / self.studies)))

    def add(self, name: str, study: Callable[[np.random.Generator], float], aim: Aim | None) -> None:
        number = len(self.lines)
        values = [float(study(np.random.default_rng([number, index]))) for index in range(self.studies)]
        self.lines.append(Line(name, "share", (float(np.mean(values)),), aim))
        self.on_sample(name, Sample(self.lines[-1].middle))


def measure_designs(request: Request, on_sample: OnSample) -> Figure:
    """A study of useless changes in five designs; and what its first design finds beside the others."""
    found = Lines(request, on_sample)
    found.add("five designs in one run, n = 10: before", lambda g: claims_in_five_before(10, g), None)
    found.add("five designs in one run, n = 10: after", lambda g: claims_in_five(10, g), found.error)
    for n, m, effect, least in ((8, 15, 2.0, 0.73), (10, 15, 1.5, 0.7)):
        alone, world = f"n = {n}, m = {m}, dz = {effect}", World(m, helped=1, effect=effect)
        found.add(f"power of one design, {alone}", lambda g, w=world, n=n: finds(w, n, g), None)  # type: ignore[misc]
        name = f"power of the first of five designs, {alone}"
        five = lambda g, n=n, m=m, effect=effect: finds_among_five(m, n, effect, g)  # type: ignore[misc]  # noqa: E731
        found.add(name, five, found.power(least))
    title = f"any claim in five designs of useless changes at .05, and power: {found.studies:,} studies a line"
    return Figure("designs", title, found.lines, [], {})


def measure_evidence(request: Request, on_sample: OnSample) -> Figure:
    found = Lines(request, on_sample)
    studies, lines, add, error = found.studies, found.lines, found.add, found.error
    for m in (1, 5, 15):
        name = f"six looks, 3 to 20 seeds, m = {m}"
        add(f"{name}: before", lambda g, m=m: looks_again_before(World(m), LOOKS, g), None)  # type: ignore[misc]
        add(f"{name}: 20 declared", lambda g, m=m: looks_again(World(m), LOOKS, 20, g), error)  # type: ignore[misc]
        add(f"{name}: 10 declared", lambda g, m=m: looks_again(World(m), LOOKS, 10, g), error)  # type: ignore[misc]
    fifteen = World(15)
    add("--only BEST after fifteen: before", lambda g: asks_for_the_best_before(fifteen, g), None)
    add("--only BEST after fifteen: after", lambda g: asks_for_the_best(fifteen, g), error)
    add("confirm each of fifteen: before", lambda g: confirms_each_before(fifteen, g), None)
    add("confirm each of fifteen: after", lambda g: confirms_each(fifteen, g), error)
    for n in (10, 20):
        for name, world in (
            ("variants left-skewed", World(9, variants=left_skewed)),
            (
                "baseline left-skewed, three times noisier",
                World(9, baseline=lambda g, shape: 3 * left_skewed(g, shape)),
            ),
        ):
            add(f"{name}, n = {n}, m = 9", lambda g, w=world, n=n: looks_again(w, (n,), n, g), None)  # type: ignore[misc]
    for n, m, effect, least in ((8, 15, 2.0, 0.78), (10, 15, 1.5, 0.75)):
        world = World(m, helped=1, effect=effect)
        power = Aim("at_least", least - 3 * float(np.sqrt(least * (1 - least) / studies)))
        add(f"power, n = {n}, m = {m}, dz = {effect}", lambda g, w=world, n=n: finds(w, n, g), power)  # type: ignore[misc]
    for m in (1, 9):
        add(f"power, --seeds auto from 3 pilots, dz = 1.5, m = {m}", lambda g, m=m: finds_from_pilots(m, 1.5, g),
            Aim("at_least", 0.8 - 3 * float(np.sqrt(0.16 / studies))))  # type: ignore[misc]  # fmt: skip
    two = World(9, helped=2, effect=1.0)
    races = [race(two, 1.0, 24, np.random.default_rng([99, index])) for index in range(max(1, studies // 4))]
    power, false, cells = (tuple(float(it) for it in column) for column in zip(*races, strict=True))
    lines.append(Line("race, m = 9, two of dz = 1: power", "share", (float(np.mean(power)),), Aim("at_least", 0.9)))
    lines.append(Line("race, m = 9, two of dz = 1: any false claim", "share", (float(np.mean(false)),), error))
    lines.append(
        Line("race, m = 9, two of dz = 1: cells a study", "cells", (float(np.mean(cells)),), Aim("at_most", 140))
    )
    title = (
        f"any claim of useless changes at .05, and power: {studies:,} studies a line, {max(1, studies // 4):,} races"
    )
    return Figure("evidence", title, lines, [], {})
