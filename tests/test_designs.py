"""Designs: which sets of changes are compared with what; groups and impossible combinations respected and named."""

import re
from itertools import combinations as subsets

import pytest

from harness.errors import StudyError
from harness.study.changes import conflicts
from harness.study.designs.comparisons import LONGEST_JOINED, combination_names, names_of_many, variant_name
from harness.study.designs.factorials import MOST_VARIANTS, greedy_candidates
from harness.study.designs.registry import DESIGNS, Comparison, design_problems, make_designs, path
from harness.study.load import load_study, studies
from tests.studies import change, independent, small_study

STUDY = small_study()
ALL = frozenset(it.name for it in (*STUDY.changes, *STUDY.combinations))


def design(text, *, study=STUDY, selected=ALL):
    (made,) = make_designs(study, [text], selected)
    return made


def names_of(study):
    return frozenset(it.name for it in (*study.changes, *study.combinations))


def variants(design):
    return [it.variant for it in design.comparisons]


def test_add_one_compares_each_selected_change_with_the_baseline_in_the_order_of_the_study():
    made = design("add-one", selected={"kernel-3", "adam", "best"})
    assert made.comparisons == (
        Comparison("add-one", "adam", ("adam",), ()),
        Comparison("add-one", "kernel-3", ("kernel-3",), ()),
    )


def test_leave_one_out_compares_the_whole_with_the_whole_less_one():
    made = design("leave-one-out:best")
    assert [(it.label, it.variant, it.reference) for it in made.comparisons] == [
        ("adam", ("adam", "norm", "flip"), ("norm", "flip")),
        ("norm", ("adam", "norm", "flip"), ("adam", "flip")),
        ("flip", ("adam", "norm", "flip"), ("adam", "norm")),
    ]
    assert {it.design for it in made.comparisons} == {"leave-one-out:best"}


def test_leave_one_out_alone_is_a_family_for_each_selected_combination():
    assert [it.name for it in make_designs(STUDY, ["leave-one-out"], ALL)] == [
        "leave-one-out:best",
        "leave-one-out:other",
    ]
    assert [it.name for it in make_designs(STUDY, ["leave-one-out"], {"other"})] == ["leave-one-out:other"]


def test_leave_one_out_leaves_out_the_selected_changes_or_all_where_only_the_combination_is_selected():
    assert [it.label for it in design("leave-one-out:best", selected={"norm", "kernel-3"}).comparisons] == ["norm"]
    assert len(design("leave-one-out", selected={"best"}).comparisons) == 3


def test_each_step_of_a_path_is_compared_with_the_step_before():
    made = design("path:report")
    assert [(it.label, it.variant, it.reference) for it in made.comparisons] == [
        ("norm", ("norm",), ()),
        ("flip", ("norm", "flip"), ("norm",)),
        ("adam", ("adam", "norm", "flip"), ("norm", "flip")),
    ]


def test_steps_of_a_long_path_are_named_by_their_last_change():
    changes = [it.model_dump() | {"name": f"a-change-of-{it.name}"} for it in independent(14).changes]
    names = tuple(it["name"] for it in changes)
    study = small_study(changes=changes, combinations=[], paths={"all": names})
    named = names_of_many(study) | combination_names(study)
    assert variant_name(names[:2], named) == "+".join(names[:2])
    assert variant_name(names[:9], named) == f"all..{names[8]}"
    assert re.fullmatch("7-changes-[0-9a-f]{6}", variant_name(names[::2], named))
    found = [variant_name(names[:count], named) for count in range(15)]
    assert len({*found}) == 15
    assert max(map(len, found)) <= LONGEST_JOINED


def test_path_alone_takes_every_path_and_names_the_steps_that_are_not_selected():
    report, short = make_designs(STUDY, ["path"], ALL - {"flip"})
    assert [it.label for it in report.comparisons] == ["norm", "adam"]
    assert report.notes == ("path:report: without flip, not selected.",)
    assert [it.label for it in short.comparisons] == ["kernel-7"]
    assert short.notes == ()


def test_pairs_are_all_that_may_stand_together_with_the_singles_and_the_others_are_named():
    made = design("pairs")
    names = [it.name for it in STUDY.changes]
    # Of 21 pairs three are impossible: one group, one common setting, and momentum, which Adam does not take.
    assert len(made.comparisons) == 21 - 3
    assert made.further == tuple((name,) for name in names)
    (note,) = made.notes
    assert "3 pairs are left out" in note
    assert "changes 'kernel-3' and 'kernel-7' exclude each other (group 'kernel')" in note
    assert "changes 'flip' and 'augment' both set augmentation.horizontal_flip" in note
    assert "momentum + adam: optimizer: momentum 0.9 is set, but adam takes none" in note


def test_interactions_can_be_computed_from_pairs():
    made = design("pairs")
    trained = {(), *variants(made), *made.further}
    for first, second in variants(made):
        assert {(first,), (second,), ()} <= trained


def test_the_factorial_takes_a_group_as_one_factor():
    made = design("factorial", selected={"norm", "kernel-3", "kernel-7"})
    assert set(variants(made)) == {
        ("norm",),
        ("kernel-3",),
        ("kernel-7",),
        ("norm", "kernel-3"),
        ("norm", "kernel-7"),
    }
    assert [it.reference for it in made.comparisons] == [()] * 5
    assert made.notes == (
        "factorial: 2 factors, 6 combinations. Exclusive changes are one: none or one of kernel-3, kernel-7.",
    )


def test_the_factorial_names_what_it_leaves_out_and_holds_everything_else():
    made = design("factorial")
    expected = {
        chosen
        for size in range(1, 8)
        for chosen in subsets([it.name for it in STUDY.changes], size)
        if not conflicts([STUDY.change(name) for name in chosen]) and not {"momentum", "adam"} <= set(chosen)
    }
    assert set(variants(made)) == expected
    assert len(variants(made)) == len(expected)
    # 2^5 x 3 levels; possible are 3 of 4 (momentum, adam) x 2 (norm) x 3 (kernel) x 3 of 4 (flip, augment), as above.
    assert f"{96 - 54} of 96 combinations are left out, so it is not complete" in made.notes[1]
    assert "augmentation.horizontal_flip" in made.notes[1]
    assert "momentum + adam" in made.notes[1]
    assert "exclude each other" not in made.notes[1]  # a group is a factor, not an obstacle


def test_a_factorial_that_is_too_large_is_refused_with_its_count():
    study = independent(14)  # 2^14 = 16,384
    with pytest.raises(
        StudyError, match=r"14 changes in 14 factors make 16,384 combinations, more than 10,000"
    ) as error:
        design("factorial", study=study, selected=names_of(study))
    assert "--design fractional" in str(error.value)
    assert MOST_VARIANTS == 10_000


def test_a_factorial_of_forty_changes_is_refused_without_counting_them_out():
    many = small_study(
        changes=[change(f"c-{index}", training__split_seed=index + 1) for index in range(40)], combinations=[], paths={}
    )
    with pytest.raises(StudyError, match=r"1,099,511,627,776"):
        design("factorial", study=many, selected=names_of(many))


def test_the_smallest_fraction_has_resolution_four_and_prints_its_aliases():
    study = independent(6)
    made = design("fractional", study=study, selected=names_of(study))
    assert len(made.comparisons) == 16 - 1
    assert "16 variants of 6 changes, resolution IV" in made.notes[0]
    assert made.notes[1].count(" = ") == 7 + 1  # 15 interactions in 7 groups: 6 pairs and one of three, 3 words of 4
    assert made.notes[1].count(" x ") == 15


def test_more_runs_give_a_higher_resolution():
    study = independent(6)
    made = design("fractional:32", study=study, selected=names_of(study))
    assert len(made.comparisons) == 31
    assert "resolution VI or more" in made.notes[0]
    assert "these with none of each other" in made.notes[1]


def test_few_changes_make_a_complete_factorial():
    study = independent(3)
    made = design("fractional", study=study, selected=names_of(study))
    assert made.notes == ("fractional: 8 variants of 3 changes are the complete factorial.",)
    assert set(variants(made)) == set(variants(design("factorial", study=study, selected=names_of(study))))


@pytest.mark.parametrize("runs", [8, 128])
def test_a_number_of_runs_that_cannot_be_is_refused_with_those_that_can(runs):
    study = independent(6)
    with pytest.raises(StudyError, match=r"6 two-level changes .* take 16 runs at least .* and 64 at most"):
        design(f"fractional:{runs}", study=study, selected=names_of(study))


def test_a_fraction_leaves_out_what_is_not_two_level_and_names_it():
    made = design("fractional")
    assert {name for variant in variants(made) for name in variant} == {"norm"}
    assert "without momentum, adam, kernel-3, kernel-7, flip, augment" in made.notes[0]


def test_a_greedy_path_is_offered_what_can_still_be_added():
    assert greedy_candidates(STUDY, {"adam", "norm", "momentum"}, []) == (("momentum",), ("adam",), ("norm",))
    assert greedy_candidates(STUDY, ALL, ["kernel-7", "adam"]) == (
        ("adam", "norm", "kernel-7"),
        ("adam", "kernel-7", "flip"),
        ("adam", "kernel-7", "augment"),
    )
    assert greedy_candidates(STUDY, {"kernel-3", "kernel-7"}, ["kernel-3"]) == ()


def test_a_greedy_path_that_cannot_be_is_refused():
    with pytest.raises(StudyError, match="exclude each other"):
        greedy_candidates(STUDY, ALL, ["kernel-3", "kernel-7"])


def test_a_finished_greedy_path_is_compared_like_a_named_one():
    assert path(STUDY, "greedy", ["norm", "flip", "adam"]).comparisons == tuple(
        Comparison("path:greedy", it.label, it.variant, it.reference) for it in design("path:report").comparisons
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("add-on", "unknown design 'add-on'. Did you mean 'add-one'? There are: add-one, combinations,"),
        ("add-one:best", "add-one takes no argument"),
        ("leave-one-out:bets", "unknown 'bets'. Did you mean 'best'? There are: best, other"),
        ("leave-one-out:", "unknown ''"),
        ("path:reprot", "Did you mean 'report'?"),
        ("fractional:12", "unknown '12'. There are: 2, 4, 8, 16, 32, 64, 128, 256, 512."),
    ],
)
def test_a_design_that_is_not_known_is_refused_with_what_there_is(text, message):
    (problem,) = design_problems(STUDY, text)
    assert message in problem


def test_a_design_of_something_that_the_study_lacks_says_so():
    bare = small_study(combinations=[], paths={})
    assert design_problems(bare, "leave-one-out") == ["design 'leave-one-out': study 'small' declares no combinations."]
    assert design_problems(bare, "path") == ["design 'path': study 'small' declares no paths."]


def test_all_wrong_designs_are_reported_at_once_and_a_repeated_one_counts_once():
    with pytest.raises(StudyError) as error:
        make_designs(STUDY, ["add-on", "path:x", "pairs"], ALL)
    assert len(error.value.problems) == 2
    assert len(make_designs(STUDY, ["add-one", "leave-one-out:best", "add-one", "leave-one-out"], ALL)) == 3


def test_a_design_without_anything_to_compare_says_so():
    assert (
        design("add-one", selected={"best"}).notes[-1].startswith("add-one: nothing to compare: no change is selected")
    )
    assert "no combination is selected" in design("leave-one-out", selected={"norm"}).notes[-1]


BUILT_IN = [(name, text) for name in studies() for text in DESIGNS]


@pytest.mark.parametrize(("name", "text"), BUILT_IN)
def test_every_design_of_every_built_in_study_compares_possible_variants_and_names_them_apart(name, text):
    study = load_study(name)
    if design_problems(study, text):
        assert not study.combinations or not study.paths
        return
    if (name, text) == ("modern", "factorial"):
        with pytest.raises(StudyError, match="make 12,288 combinations, more than 10,000"):
            make_designs(study, [text], names_of(study))
        return
    for made in make_designs(study, [text], names_of(study)):
        assert len({it.label for it in made.comparisons}) == len(made.comparisons)
        for it in made.comparisons:
            assert it.variant != it.reference
            assert it.design == made.name
            for side in (it.variant, it.reference):
                assert not conflicts([study.change(member) for member in side])


def test_there_are_built_in_studies_and_designs_to_test():
    assert len(BUILT_IN) >= 14
