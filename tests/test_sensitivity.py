"""What a plan's seeds can show: the spread measured so far, pooled; before any run, what the trainer expects."""

import math
from dataclasses import replace

import pytest

from harness.cli.plan import _power
from harness.errors import StudyError
from harness.plan.plan import make_plan
from harness.plan.power import seeds_from_pilots, seeds_needed, smallest_detectable_effect, weight_beside_main
from harness.plan.sensitivity import Sensitivity, Spread, difference_spread, main_family, seeds_for, sensitivity
from harness.trainers.images.trainer import ImageTrainer
from tests.studies import small_study

# Reported numbers of three variants by seed; the last seed of `adam` has not finished.
NUMBERS = {"baseline": [0.50, 0.52, 0.51], "norm": [0.55, 0.56, 0.58], "adam": [0.40, 0.46, None]}


class Unknowing(ImageTrainer):
    """Knows nothing of the spread before any run."""

    def expected_spread(self, settings):
        return math.nan


def planned(seeds=(0, 1, 2), trainer=None, designs=(), horizon=None):
    study = small_study().model_copy(update={"trainer": trainer or ImageTrainer()})
    fixed = {"training.precision": "float32"}
    return make_plan(
        study,
        seeds=seeds,
        designs=designs,
        only=["norm", "adam"],
        overrides=fixed,
        fingerprints=lambda settings: {},
        horizon=horizon,
    )


def reported(plan, numbers):
    by_key = {cell.key: numbers[it.name][cell.seed] for it in plan.variants for cell in it.cells}
    return lambda cell: by_key[cell.key]


def nothing(cell):
    return None


def test_the_spread_is_pooled_over_the_variants_by_degrees_of_freedom():
    plan = planned()
    # norm - baseline: .05, .04, .07, mean .16/3, squares .000467; adam - baseline: -.10, -.06, squares .0008.
    expected = math.sqrt((0.0014 / 3 + 0.0008) / (2 + 1))
    spread = difference_spread(plan, reported(plan, NUMBERS))
    assert (spread.sd, spread.degrees, spread.is_measured) == (pytest.approx(expected), 3, True)


def test_before_there_are_three_degrees_of_freedom_the_trainers_expectation_stands():
    plan = planned()
    few = NUMBERS | {"adam": [None, None, None]}
    # sqrt(2) sqrt(0.25 / (2 x 5,000)) of Jordan 2023, for the 5,000 test images of the shapes.
    assert difference_spread(plan, reported(plan, few)) == Spread(pytest.approx(math.sqrt(0.25 / 5000)))
    assert difference_spread(plan, nothing) == difference_spread(plan, reported(plan, few))


def test_what_the_seeds_can_show_is_corrected_for_the_largest_design():
    plan = planned(seeds=range(8), horizon=8)
    numbers = {name: [*known, *[None] * 5] for name, known in NUMBERS.items()}
    found = sensitivity(plan, reported(plan, numbers))
    assert found.family_size == main_family(plan)[0] == 2
    assert found.detectable == smallest_detectable_effect(8, found.sd, m=2)
    assert seeds_for(plan, reported(plan, numbers), 0.02) == seeds_from_pilots(0.02, found.sd, 3, m=2)
    assert seeds_for(plan, nothing, 0.02) == seeds_needed(0.02, math.sqrt(0.25 / 5000), m=2)


@pytest.mark.parametrize(
    ("designs", "others"),
    # Beside norm and adam alone: both together, and their interaction; of a complete factorial two Shapley values, too.
    [(["add-one"], 0), (["add-one", "pairs"], 2), (["add-one", "factorial"], 4)],
)
def test_what_changes_do_together_has_its_part_of_the_error_budget(designs, others):
    plan = planned(designs=designs)
    weight = weight_beside_main(2, others)
    assert main_family(plan) == (2, pytest.approx(2 / (2 + weight * others)))


def test_seeds_too_few_to_claim_anything_show_nothing():
    for seeds in ([0], range(5)):
        assert math.isnan(sensitivity(planned(seeds=seeds), nothing).detectable)


def test_a_look_before_the_horizon_shows_what_it_may_spend_and_one_beyond_it_no_more_than_the_horizon():
    early, whole, beyond = (planned(seeds=range(n), horizon=10) for n in (8, 10, 10))
    beyond = replace(planned(seeds=range(20)), horizon=10)  # as of a study run that declared ten
    shown = [sensitivity(it, nothing) for it in (early, whole, beyond)]
    sd = math.sqrt(0.25 / 5000)
    assert shown[0].detectable == pytest.approx(smallest_detectable_effect(8, sd, 0.04, m=2))
    assert shown[1].detectable == shown[2].detectable == pytest.approx(smallest_detectable_effect(10, sd, m=2))
    assert shown[1].detectable < shown[0].detectable
    assert [(it.num_seeds, it.horizon) for it in shown] == [(8, 10), (10, 10), (20, 10)]
    assert math.isnan(sensitivity(planned(seeds=range(6), horizon=10), nothing).detectable)  # 6 of 10 may spend .03

    of_eight = 1.001 * smallest_detectable_effect(8, sd, m=2)
    assert (seeds_for(whole, nothing, of_eight), seeds_for(whole, nothing, of_eight, horizon=10)) == (8, 9)
    free = seeds_for(whole, nothing, 0.9 * shown[1].detectable)
    with pytest.raises(StudyError, match=rf"takes {free} seeds, and 10 are declared.*--horizon {free}"):
        seeds_for(whole, nothing, 0.9 * shown[1].detectable, horizon=10)


def test_a_spread_that_nobody_knows_is_said_to_be_unknown():
    plan = planned(trainer=Unknowing())
    found = sensitivity(plan, nothing)
    assert math.isnan(found.sd)
    assert math.isnan(found.detectable)
    assert not found.is_measured
    with pytest.raises(StudyError, match=r"how much test accuracy varies from seed to seed.*--seeds 3"):
        seeds_for(plan, nothing, 0.02)
    assert seeds_for(plan, reported(plan, NUMBERS), 0.02) > 2


def test_a_study_run_that_declared_too_few_seeds_is_told_so_and_not_that_nothing_was_measured():
    found = Sensitivity(10, 5, 2, 1.0, 0.01, True, math.nan)
    said = _power(found, small_study().trainer.metrics.reporting)
    assert said.startswith("This study run declared 5 seeds before its first cell, with which nothing can be claimed")
