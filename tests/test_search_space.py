"""The space of a search: which combinations there are, in which order they are tried, which cannot be."""

import random

import pytest
from searched import POSSIBLE, STUDY, plan_of

from harness.errors import StudyError
from harness.search.sampling import distributions
from harness.search.space import Space


@pytest.fixture(scope="module")
def space():
    return Space.of(plan_of())


def test_a_group_is_one_parameter_and_every_other_change_a_switch(space):
    assert {name: space.choices(name) for name in space.factors} == {
        "momentum": (False, True),
        "adam": (False, True),
        "norm": (False, True),
        "kernel": ("baseline", "kernel-3", "kernel-7"),
        "flip": (False, True),
        "crop": (False, True),
    }
    assert list(distributions(space)) == list(space.factors)


def test_a_combination_and_its_parameters_say_the_same(space):
    every = list(space.by_distance())
    assert [space.changes_of(space.params_of(changes)) for changes in every] == every
    params = space.params_of(("norm", "kernel-7"))
    assert params["norm"] is True
    assert params["kernel"] == "kernel-7"
    assert params["adam"] is False


@pytest.mark.parametrize(
    "params",
    [{}, {"norm": True}, {"kernel": "kernel-5"}, {"norm": "yes"}, {"nonsense": True}],
    ids=["none", "too few", "no choice", "no switch", "no parameter"],
)
def test_parameters_that_are_not_of_this_space_are_no_combination(space, params):
    whole = {} if params in ({}, {"norm": True}) else space.params_of(())
    assert space.changes_of(whole | params) is None


def test_a_group_named_like_a_change_stays_apart_from_it():
    changes = [it | {"group": "norm"} if it["name"].startswith("kernel") else it for it in STUDY["changes"]]
    space = Space.of(plan_of(study=STUDY | {"changes": changes}))
    assert space.factors["norm"] == ("norm",)
    assert space.factors["group norm"] == ("kernel-3", "kernel-7")


def test_combinations_that_cannot_be_are_named_and_left_out(space):
    assert set(space.clashes) == {frozenset({"momentum", "adam"}), frozenset({"flip", "crop"})}
    assert "both set augmentation.horizontal_flip" in space.why_not(("norm", "flip", "crop"))
    assert "momentum" in space.why_not(("momentum", "adam"))
    assert space.why_not(("norm", "flip")) == ""

    every = list(space.by_distance())
    assert len(every) == len(set(every)) == POSSIBLE
    assert not any(space.why_not(changes) for changes in every)


def test_the_baseline_each_change_the_named_combinations_and_the_full_one_come_first(space):
    first = space.first()
    assert list(first) == [
        (),
        *((it["name"],) for it in STUDY["changes"]),
        ("adam", "norm", "flip"),
        ("momentum", "norm", "kernel-3", "flip"),
    ]
    assert first[("adam", "norm", "flip")] == "the combination all-good"


def test_the_full_combination_takes_the_first_of_each_group_and_skips_what_clashes(space):
    assert space.full() == ("momentum", "norm", "kernel-3", "flip")


def test_a_combination_is_full_only_of_what_was_selected():
    space = Space.of(plan_of(only=("adam", "crop", "kernel-7")))
    assert space.full() == ("adam", "kernel-7", "crop")
    assert list(space.first()) == [(), ("adam",), ("kernel-7",), ("crop",), ("adam", "kernel-7", "crop")]


def test_nearest_combinations_come_first_and_all_come_once(space):
    centre = ("adam", "flip")
    for generator in (None, random.Random(1)):
        every = list(space.by_distance(centre, generator))
        distances = [_distance(space, centre, changes) for changes in every]
        assert distances == sorted(distances)
        assert set(every) == set(space.by_distance())
        assert len(every) == POSSIBLE


def _distance(space, one, other):
    params, others = space.params_of(one), space.params_of(other)
    return sum(params[name] != others[name] for name in params)


def test_few_changes_come_before_many(space):
    lengths = [len(changes) for changes in space.by_distance()]
    assert lengths == sorted(lengths)


def test_a_space_too_large_to_list_gives_its_nearest_combinations_at_once():
    changes = [
        {"name": f"side-{count}", "summary": "s", "overrides": {f"model.options.o{count}": 1}} for count in range(40)
    ]
    baseline = {
        "data": {"kind": "shapes"},
        "model": {"kind": "plugin", "factory": "a:b", "options": {f"o{count}": 0 for count in range(40)}},
    }
    study = {"name": "large", "title": "Large", "baseline": baseline, "changes": changes}
    space = Space.of(plan_of(study=study, seeds=1))
    centre = space.draw(random.Random(3))
    near = space.by_distance(centre, random.Random(3))
    assert space.size == 2**40
    assert [_distance(space, centre, next(near)) for _ in range(900)] == [0] + [1] * 40 + [2] * 780 + [3] * 79


def test_a_study_without_changes_has_no_space():
    with pytest.raises(StudyError, match="'small' has no changes to search over"):
        Space.of(plan_of(study={name: STUDY[name] for name in ("name", "title", "baseline")}))
