"""The correction of a family at one look, at several, and beyond the horizon: brute force, published tables, error."""

import time
from itertools import product

import numpy as np
import pytest
from scipy import stats

from harness.stats.evidence import BEYOND, ONE_LOOK, PRICE_BEYOND, SEVERAL_LOOKS, evidence
from harness.stats.sequential import boundaries, e_process_p, group_sequential, smallest_e_process_p, spent_by
from harness.stats.significance import holm, sign_flip_p
from harness.stats.stepdown import westfall_young
from harness.stats.values import Schedule


def family(m: int, n: int, seed: int, effects: float = 0.0, helped: int = 0) -> np.ndarray:
    """m changes against one baseline on n seeds; the first `helped` improve by `effects` sd of the difference."""
    generator = np.random.default_rng(seed)
    differences = (generator.normal(size=(m, n)) - generator.normal(size=n)) / np.sqrt(2)
    differences[:helped] += effects
    return differences


def first(looks: tuple[int, ...], n: int) -> list[np.ndarray]:
    return [np.arange(n) < look for look in looks]


def brute_force(differences: np.ndarray) -> list[float]:
    """Westfall-Young by its definition: every sign vector, t by its formula, no shortcut."""
    m, n = differences.shape

    def t(values: np.ndarray) -> float:
        sd = values.std(ddof=1)
        return abs(values.mean()) / (sd / np.sqrt(n)) if sd > 1e-12 else np.inf

    observed = [t(row) for row in differences]
    order = sorted(range(m), key=lambda j: -observed[j])
    p, largest = [0.0] * m, 0.0
    for place, j in enumerate(order):
        flipped = (max(t(np.array(e) * differences[k]) for k in order[place:]) for e in product((-1, 1), repeat=n))
        largest = max(largest, sum(it >= observed[j] * (1 - 1e-9) for it in flipped) / 2**n)
        p[j] = largest
    return p


@pytest.mark.parametrize("seed", range(3))
def test_westfall_young_agrees_with_brute_force(seed: int) -> None:
    differences = family(4, 7, seed, effects=1.0, helped=2)
    assert westfall_young(differences, alpha=1.0) == pytest.approx(brute_force(differences), abs=1e-12)


def test_it_agrees_with_brute_force_where_differences_are_tied() -> None:
    differences = np.round(family(3, 7, 3), 1)
    differences[2] = differences[0] * 3  # the same t
    differences[1, :3] = 0.0
    assert westfall_young(differences, alpha=1.0) == pytest.approx(brute_force(differences), abs=1e-12)


def test_with_weights_it_agrees_with_brute_force() -> None:
    """By the definition: z^2 + 2 log(weight), z = Wallace's normal scale of t, is compared, vector by vector."""
    differences, weights = family(4, 7, 1, effects=1.0, helped=2), np.array([1.0, 0.05, 1.0, 0.3])
    v = 6

    def statistic(values: np.ndarray, weight: float) -> float:
        t = values.mean() / (values.std(ddof=1) / np.sqrt(7))
        z = (8 * v + 1) / (8 * v + 3) * np.sqrt(v * np.log(1 + t**2 / v))
        return float(z**2 + 2 * np.log(weight))

    observed = [statistic(row, weight) for row, weight in zip(differences, weights, strict=True)]
    order = sorted(range(4), key=lambda j: -observed[j])
    p, largest = [0.0] * 4, 0.0
    for place, j in enumerate(order):
        flips = [np.array(e) for e in product((-1, 1), repeat=7)]
        reached = [max(statistic(e * differences[k], weights[k]) for k in order[place:]) for e in flips]
        largest = max(largest, float(np.mean([it >= observed[j] - 1e-9 for it in reached])))
        p[j] = largest
    assert westfall_young(differences, alpha=1.0, weights=weights) == pytest.approx(p, abs=1e-12)
    assert westfall_young(differences, alpha=1.0) != pytest.approx(p, abs=1e-3)  # the weights show


def test_holm_with_weights_is_that_of_his_paper() -> None:
    # p / weight: .02, .016, .04. In rising order, times the weight left: .016 * 2.5, .02 * 2, .04 * 1.
    p, weights = np.array([0.02, 0.008, 0.04]), np.array([1.0, 0.5, 1.0])
    assert holm(p, weights) == pytest.approx([0.04, 0.04, 0.04])
    assert holm(p) == pytest.approx([0.04, 0.024, 0.04])


@pytest.mark.parametrize("n", [3, 10, 20])
def test_of_one_change_it_is_the_sign_flip_test(n: int) -> None:
    differences = family(1, n, n, effects=0.6, helped=1)
    # Above 16 seeds both draw sign vectors: each p has a standard error of sqrt(p (1 - p) / 100,000).
    assert westfall_young(differences) == pytest.approx(sign_flip_p(differences), abs=0.0 if n <= 16 else 0.003)


def test_the_smallest_p_is_not_multiplied_by_the_size_of_the_family() -> None:
    unanimous = 1 + 0.1 * family(15, 8, 1)
    assert westfall_young(unanimous).min() == pytest.approx(2**-7)


def test_the_order_of_members_and_of_seeds_does_not_matter() -> None:
    differences = family(5, 9, 4, effects=1.0, helped=2)
    members, seeds = [3, 0, 4, 2, 1], np.random.default_rng(0).permutation(9)
    expected = westfall_young(differences)
    assert westfall_young(differences[members][:, seeds]) == pytest.approx(expected[members], abs=1e-12)


def test_a_member_with_two_seeds_costs_the_others_nothing() -> None:
    differences = family(4, 10, 5, effects=1.5, helped=3)
    alone = westfall_young(differences[:3])
    differences[3] = np.nan
    differences[3, :2] = 0.5  # the same difference twice: its t is infinite
    assert westfall_young(differences)[:3] == pytest.approx(alone, abs=1e-12)
    differences[3] = np.nan  # no result at all
    assert westfall_young(differences)[:3] == pytest.approx(alone, abs=1e-12)
    assert np.isnan(westfall_young(differences)[3])


def test_a_member_that_lost_a_seed_can_still_be_claimed() -> None:
    differences = family(5, 10, 6, effects=3.0, helped=2)
    differences[0, 3] = np.nan
    assert (westfall_young(differences)[:2] <= 0.05).all()


def test_a_hundred_changes_on_thirty_seeds_take_less_than_five_seconds() -> None:
    began = time.perf_counter()
    westfall_young(family(100, 30, 7))
    assert time.perf_counter() - began < 5


# --- several looks


def test_one_look_at_the_horizon_is_westfall_young() -> None:
    differences = family(4, 9, 8, effects=1.2, helped=2)
    one = group_sequential(differences, first((9,), 9), 9)
    claimed = one <= 0.05
    assert 0 < claimed.sum() < 4
    assert one[claimed] == pytest.approx(westfall_young(differences)[claimed])
    assert (one >= westfall_young(differences) - 1e-12).all()


def claimed_by_definition(differences: np.ndarray, looks: tuple[int, ...], horizon: int, alpha: float) -> set[int]:
    """Rule 15 word by word: at each look remove the sign vectors with the largest max |t|; reject; step down."""
    m, n = differences.shape
    vectors = [np.array(e) for e in product((-1, 1), repeat=n)]

    def t(j: int, e: np.ndarray, look: int) -> float:
        values = (e * differences[j])[:look]
        return float(abs(values.mean()) / (values.std(ddof=1) / np.sqrt(look)))

    found: set[int] = set()
    while True:
        rest = [j for j in range(m) if j not in found]
        alive, removed, new = list(range(len(vectors))), 0, set()
        for look in looks if rest else ():
            room = int(len(vectors) * alpha * look / horizon + 1e-9) - removed
            largest = {i: max(t(j, vectors[i], look) for j in rest) for i in alive}
            values = sorted(largest.values(), reverse=True)
            # Down to a value that is not tied across the edge.
            cuts = [c for c in range(1, room + 1) if c == len(values) or values[c - 1] - values[c] > 1e-9]
            if not cuts:
                continue
            boundary = values[cuts[-1] - 1] - 1e-10
            new |= {j for j in rest if t(j, np.ones(n), look) >= boundary}
            gone = [i for i in alive if largest[i] >= boundary]
            alive, removed = [i for i in alive if largest[i] < boundary], removed + len(gone)
        if not new:
            return found
        found |= new


@pytest.mark.parametrize("seed", range(4))
def test_what_several_looks_claim_agrees_with_the_definition(seed: int) -> None:
    differences = family(3, 8, 20 + seed, effects=1.3, helped=2)
    for alpha in (0.05, 0.2):
        p = group_sequential(differences, first((6, 7, 8), 8), 10, alpha)
        expected = claimed_by_definition(differences, (6, 7, 8), 10, alpha)
        assert {j for j in range(3) if p[j] <= alpha + 1e-12} == expected


# Two-sided .05, five equally spaced looks, by Lan and DeMets' spending functions, as printed with the program ld98
# (Reboussin et al. 2000) and by R's gsDesign: O'Brien and Fleming's kind, Pocock's kind.
PUBLISHED = {
    "O'Brien-Fleming": (
        lambda t: 4 * stats.norm.sf(stats.norm.isf(0.0125) / np.sqrt(t)),
        (4.8769, 3.3569, 2.6803, 2.2898, 2.0310),
    ),
    "Pocock": (lambda t: 0.05 * np.log(1 + (np.e - 1) * t), (2.4380, 2.4268, 2.4101, 2.3966, 2.3859)),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_boundaries_agree_with_published_tables_to_the_third_digit(kind: str) -> None:
    spending, published = PUBLISHED[kind]
    uniform = stats.qmc.Sobol(5, seed=1).random_base2(20)
    sums = np.cumsum(stats.norm.ppf(uniform), axis=1)
    paths = [np.abs(sums[:, k]) / np.sqrt(k + 1) for k in range(5)]
    allowed = np.floor(len(uniform) * spending(np.arange(1, 6) / 5)).astype(np.int64)
    found = boundaries(paths, allowed)
    assert found[1:] == pytest.approx(published[1:], abs=0.005)
    assert found[2:] == pytest.approx(published[2:], abs=0.002)
    if kind == "Pocock":  # O'Brien and Fleming's first look removes 1 path of a million, which none can place
        assert found[0] == pytest.approx(published[0], abs=0.001)


def test_by_each_look_as_much_is_spent_as_its_share_of_the_horizon() -> None:
    assert spent_by(first((6, 15, 30), 30), 30) == pytest.approx([0.2, 0.5, 1.0])
    assert spent_by(first((12,), 12), 10) == pytest.approx([1.0])


def test_three_seeds_spend_nothing_that_a_later_look_could_use() -> None:
    differences = family(1, 10, 30, effects=1.0, helped=1)
    looked = group_sequential(differences, first((3, 10), 10), 10)
    assert looked == pytest.approx(westfall_young(differences))


def test_looking_costs() -> None:
    differences = family(1, 20, 31, effects=0.6, helped=1)
    often = group_sequential(differences, first((8, 12, 16, 20), 20), 20)
    assert often[0] > 1.1 * group_sequential(differences, first((20,), 20), 20)[0]


# --- beyond the horizon


def test_the_e_process_ever_claims_in_no_more_than_its_share_of_all_sign_vectors() -> None:
    size = np.abs(family(1, 12, 40)[0])
    signs = np.array(list(product((-1, 1), repeat=12)))
    p = np.array([e_process_p((size * e)[None])[0] for e in signs])
    for alpha in (0.01, 0.05, 0.2):
        assert 0 < np.mean(p <= alpha) <= alpha


def test_evidence_chooses_by_what_was_declared_and_looked_at() -> None:
    differences, seeds = family(2, 12, 50, effects=2.0, helped=1), range(12)
    once = evidence(differences, seeds, Schedule(12), 0.05)
    assert (once.correction, once.look) == (ONE_LOOK, "")
    assert once.p == pytest.approx(westfall_young(differences))
    assert evidence(differences, seeds, Schedule(), 0.05).p == pytest.approx(once.p)  # nothing was declared

    early = evidence(differences, seeds, Schedule(30), 0.05)
    assert (early.correction, early.look) == (SEVERAL_LOOKS, "look 1, at 12 of 30 planned seeds")
    assert early.smallest == pytest.approx([2**-11 * 30 / 12] * 2)

    second = evidence(differences, seeds, Schedule(12, (tuple(range(8)),)), 0.05)
    assert second.look == "look 2, at 12 of 12 planned seeds"
    assert (second.p >= once.p).all()

    beyond = evidence(differences, seeds, Schedule(10), 0.05)
    assert (beyond.correction, beyond.look) == (BEYOND, "look 1, at 12 seeds, beyond the 10 planned")
    assert beyond.p == pytest.approx(np.minimum(PRICE_BEYOND * e_process_p(differences), 1))
    assert (beyond.smallest <= beyond.p).all()


def test_what_was_claimed_within_the_plan_stays_claimed_beyond_it() -> None:
    differences = family(2, 12, 50, effects=2.0, helped=1)
    planned = westfall_young(differences[:, :10])
    assert planned[0] <= 0.05
    beyond = evidence(differences, range(12), Schedule(10, (tuple(range(10)),)), 0.05)
    assert (beyond.correction, beyond.look) == (
        f"{ONE_LOOK}, then {BEYOND}",
        "look 2, at 12 seeds, beyond the 10 planned",
    )
    assert PRICE_BEYOND * e_process_p(differences)[0] > planned[0]  # as if it had never been claimed
    assert beyond.p[0] == pytest.approx(planned[0])
    twice = Schedule(10, (tuple(range(6)), tuple(range(10)), tuple(range(11))))
    within = evidence(differences[:, :10], range(10), twice, 0.05)
    assert within.correction == SEVERAL_LOOKS
    assert evidence(differences, range(12), twice, 0.05).p[0] == pytest.approx(within.p[0])


def test_nothing_is_claimed_for_the_other_direction_than_that_of_the_look_at_which_it_was() -> None:
    differences = family(1, 8, 50, effects=3.0, helped=1)
    schedule = Schedule(16, (tuple(range(8)),))
    assert evidence(differences, range(8), schedule, 0.05).p[0] <= 0.05
    turned = np.concatenate([differences, -1.2 * differences], axis=1)  # now it looks harmful
    assert evidence(turned, range(16), schedule, 0.05).p[0] > 0.05
    assert evidence(turned, range(16), Schedule(8, schedule.looks), 0.05).p[0] > 0.05


def test_no_differences_give_a_smaller_p_beyond_the_plan_than_the_smallest_that_is_said() -> None:
    for n in (5, 8, 12):
        growing = 1e3 ** np.arange(n)  # more than equal ones: each is far beyond the spread of those before
        smallest = smallest_e_process_p(np.array([n]))[0]
        assert e_process_p(np.ones((1, n)))[0] > e_process_p(growing[None])[0] >= smallest
        assert e_process_p(growing[None])[0] == pytest.approx(smallest, rel=1e-5)


@pytest.mark.slow
def test_looks_within_the_plan_and_beyond_it_together_keep_a_tenth_more_than_the_error() -> None:
    claimed = []
    for study in range(1_000):
        differences, looks, ever = family(3, 20, 7_000 + study), (), False
        for n in (5, 8, 10, 14, 20):
            ever |= bool((evidence(differences[:, :n], range(n), Schedule(8, looks), 0.05).p <= 0.05).any())
            looks = (*looks, tuple(range(n)))
        claimed.append(ever)
    assert np.mean(claimed) <= 0.055 + 3 * np.sqrt(0.055 * 0.945 / 1_000)


def test_a_look_that_saw_nothing_new_is_none() -> None:
    differences = family(2, 10, 51)
    again = Schedule(10, (tuple(range(10)), tuple(range(10))))
    assert evidence(differences, range(10), again, 0.05).look == ""


# --- error and power, by simulation


@pytest.mark.slow
@pytest.mark.parametrize("early", [(0,), (0, 1, 2)], ids=["one seed", "three seeds, rounded"])
def test_an_early_look_at_few_seeds_costs_no_more_than_its_share_whatever_members_weigh(early: tuple[int, ...]) -> None:
    """One difference, or three equal ones, had an infinite score, which crossed an infinite boundary: error .98."""
    weights = np.array([1, 1, 1, 0.25, 0.25, 0.25])
    schedule = Schedule(10, (early,))
    claims = []
    for study in range(1_000):
        differences = family(6, 10, 11_000 + study)
        if len(early) == 3:
            differences = np.round(2 * differences) / 2
        claims.append(bool((evidence(differences, range(10), schedule, 0.05, weights).p <= 0.05).any()))
    assert np.mean(claims) <= 0.05 + 3 * np.sqrt(0.0475 / 1_000)


def test_seeds_that_are_added_below_the_others_come_after_them() -> None:
    differences = family(1, 12, 60)
    upward = evidence(differences, range(12), Schedule(6, (tuple(range(6)), tuple(range(9)))), 0.05)
    turned = np.concatenate([differences[:, 9:], differences[:, 6:9], differences[:, :6]], axis=1)
    downward = evidence(turned, range(12), Schedule(6, (tuple(range(6, 12)), tuple(range(3, 12)))), 0.05)
    assert downward.p == pytest.approx(upward.p)


def test_seeds_that_spoke_for_harm_are_no_evidence_of_a_gain() -> None:
    draw = np.random.default_rng(5)
    differences = np.concatenate([draw.normal(-1, 0.3, 10), draw.normal(1.2, 0.3, 20)])[None]
    assert differences.mean() > 0
    assert e_process_p(-differences[:, :10])[0] < 0.01  # strong as harm
    assert e_process_p(differences)[0] > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "dz", "power"), [(8, 15, 2.0, 0.78), (10, 15, 1.5, 0.75)])
def test_westfall_young_finds_what_holm_could_not(n: int, m: int, dz: float, power: float) -> None:
    found = [westfall_young(family(m, n, 100 + study, dz, helped=1))[0] <= 0.05 for study in range(1_000)]
    assert np.mean(found) >= power - 3 * np.sqrt(power * (1 - power) / 1_000)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(8, 15), (10, 9), (16, 3)])
def test_westfall_young_keeps_the_family_wise_error(n: int, m: int) -> None:
    claims = [(westfall_young(family(m, n, study)) <= 0.05).any() for study in range(2_000)]
    assert 0.03 < np.mean(claims) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2_000)


@pytest.mark.ordeal
@pytest.mark.slow
def test_who_looks_six_times_claims_something_false_in_one_study_of_twenty() -> None:
    studies, claims = 400, 0
    for study in range(studies):
        differences, seen = family(3, 14, study), Schedule(14)
        for n in (3, 5, 8, 10, 12, 14):
            claims_now = evidence(differences[:, :n], range(n), seen, 0.05).p <= 0.05
            seen = Schedule(14, (*seen.looks, tuple(range(n))))
            if claims_now.any():
                claims += 1
                break
    assert 0 < claims / studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
