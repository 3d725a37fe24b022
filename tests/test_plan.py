"""Plans: each distinct cell once, one key for one computation, requests refused with everything that is wrong."""

import hashlib
import json
import random
import time

import pytest

from harness.errors import StudyError
from harness.plan.extension import extended
from harness.plan.manifest import Manifest, RunComparison
from harness.plan.plan import make_plan, parse_seeds
from harness.study.designs.registry import design_problems
from harness.study.load import load_study, studies
from harness.study.study import Combination
from harness.trainers.images.settings import Settings
from harness.trainers.images.trainer import scale_filters
from tests.studies import TREE, change, independent, small_study


def fingerprints(settings):
    return {"data": settings.data.kind}


def planned(study=None, **request):
    """A plan whose keys do not depend on the machine, unless `precision` is `auto`."""
    precision = request.pop("precision", "float32")
    request = {"fingerprints": fingerprints} | request
    request["overrides"] = {"training.precision": precision} | request.get("overrides", {})
    return make_plan(study or small_study(), **request)


def keys(plan):
    return {variant.name: [cell.key for cell in variant.cells] for variant in plan.variants}


def test_every_distinct_cell_is_planned_once_whichever_designs_need_it():
    plan = planned(designs=["add-one", "leave-one-out:best", "path:report", "combinations"], seeds=[0, 1])
    # Baseline; 7 singles; best and other; best less adam, norm, flip: norm+flip is also a step of the path.
    assert len(plan.variants) == 1 + 7 + 2 + 3
    assert len(plan.cells) == 2 * len(plan.variants)
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)
    assert len(plan.comparisons) == 7 + 3 + 3 + 2


def test_the_plan_starts_with_the_baseline_and_goes_seed_by_seed():
    plan = planned(seeds=[3, 1])
    assert plan.variants[0].changes == ()
    assert [cell.seed for cell in plan.cells] == [3] * 8 + [1] * 8


def test_every_comparison_is_of_planned_variants():
    plan = planned(designs=["pairs", "leave-one-out"], seeds=[0])
    planned_changes = {variant.changes for variant in plan.variants}
    for comparison in plan.comparisons:
        assert {comparison.variant, comparison.reference} <= planned_changes


def test_the_keys_do_not_depend_on_the_order_of_changes_or_of_keys_in_the_file():
    shuffled = random.Random(0)
    plan = planned(designs=["combinations", "pairs"], seeds=[0])
    for _ in range(5):
        tree = dict(shuffled.sample(list(TREE.items()), len(TREE)))
        for name in ("changes", "combinations"):
            tree[name] = shuffled.sample(tree[name], len(tree[name]))
        tree["combinations"] = [
            it | {"changes": shuffled.sample(it["changes"], len(it["changes"]))} for it in tree["combinations"]
        ]
        other = planned(small_study(**tree), designs=["pairs", "combinations"], seeds=[0])
        assert {cell.key for cell in other.cells} == {cell.key for cell in plan.cells}
        assert keys(other)["best"] == keys(plan)["best"]


def test_an_explicit_default_gives_the_key_of_the_implicit_one():
    explicit = small_study(baseline=Settings.model_validate(TREE["baseline"]).model_dump(mode="json"))
    assert keys(planned(explicit)) == keys(planned())


@pytest.fixture
def machine(monkeypatch):
    """Sets what `auto` means here, by device."""

    def set_native(**precisions):
        monkeypatch.setattr("harness.trainers.images.trainer.native_precision", precisions.__getitem__)

    return set_native


def test_auto_precision_is_resolved_before_the_key(machine):
    machine(cpu="float32", cuda="bfloat16")
    float32, bfloat16 = planned(precision="auto"), planned(precision="auto", device="cuda")
    assert {variant.settings.training.precision for variant in float32.variants} == {"float32"}
    assert {variant.settings.training.precision for variant in bfloat16.variants} == {"bfloat16"}
    assert not set(float32.cells) & set(bfloat16.cells)
    assert keys(planned(precision="float32", device="cuda")) == keys(float32)


def test_auto_precision_in_a_change_is_resolved_too(machine):
    machine(cpu="float32", cuda="bfloat16")
    baseline = {"data": {"kind": "shapes"}, "training": {"precision": "bfloat16"}}
    auto = [change("auto", training__precision="auto")]
    study = small_study(baseline=baseline, changes=auto, combinations=[], paths={})
    assert planned(study, precision="bfloat16").variants[1].settings.training.precision == "float32"
    with pytest.raises(StudyError, match="'baseline' and 'auto' have the same settings"):
        planned(study, precision="bfloat16", device="cuda")


def test_a_precision_that_the_device_lacks_is_refused_once_with_a_variant_that_has_it():
    with pytest.raises(StudyError, match=r"tf32 is a format of CUDA devices.*\(variant baseline\)") as error:
        planned(precision="tf32")
    assert len(error.value.problems) == 1


def test_the_plan_of_the_reports_study_has_the_keys_of_the_first_release():
    """Taken from 0.1: whoever stored these cells must find them. The id and the hash keep a study run together."""
    plan = planned(load_study("task3"), profile="quick", fingerprints=lambda settings: {"data": "abc"})
    assert keys(plan)["baseline"][:2] == ["ba2693c8eb302aca", "c69b8ab527caef22"]
    assert keys(plan)["batch-norm"][0] == "106cee72bdc2ab7e"
    assert plan.id == "task3-quick-53194e14"
    assert [it.settings_hash for it in plan.variants[:2]] == ["53194e14c875e308", "8e23111ba30aee99"]


def test_options_of_a_profile_are_the_trainers_and_an_unknown_one_is_refused_with_the_nearest():
    study = small_study(profiles={"standard": {"trainer": {"filter_scal": 0.5}}})
    with pytest.raises(StudyError, match=r"trainer: unknown option 'filter_scal'. Did you mean 'filter_scale'"):
        planned(study)


@pytest.mark.parametrize("factor", [0, 4.5, "2", True])
def test_a_scale_of_filters_that_cannot_be_is_refused(factor):
    with pytest.raises(StudyError, match=r"trainer.filter_scale: expected a number above 0, at most 4"):
        scale_filters(Settings(), factor)


def test_the_fingerprints_are_part_of_the_key():
    other = planned(fingerprints=lambda settings: {"data": "other images"})
    assert not {cell.key for cell in other.cells} & {cell.key for cell in planned().cells}


def test_the_profile_says_how_many_seeds_and_which_settings():
    quick = planned(profile="quick")
    assert quick.exploratory
    assert not planned().exploratory
    assert quick.seeds == (0, 1)
    assert planned().seeds == tuple(range(10))
    assert {variant.settings.training.max_epochs for variant in quick.variants} == {3}


def test_overrides_of_the_request_go_over_those_of_the_profile():
    assert planned(profile="quick", overrides={"training.max_epochs": 1}).variants[0].settings.training.max_epochs == 1


def test_another_kind_of_data_in_the_request_replaces_the_profiles_data_as_a_whole():
    plan = planned(load_study("task3"), profile="quick", overrides={"data.kind": "cifar100"})
    assert plan.variants[0].settings.data.kind == "cifar100"


def test_filters_are_scaled_after_the_changes_and_never_below_one():
    study = small_study(changes=[change("wide", model__filters=[64, 2, 6])], combinations=[], paths={})
    baseline, wide = planned(study, profile="quick").variants
    assert baseline.settings.model.filters == (8, 16, 32)
    assert wide.settings.model.filters == (16, 1, 2)  # 0.5 is rounded to even, then raised to 1; 1.5 to 2
    resnet = Settings.model_validate({"model": {"kind": "resnet18"}})
    assert scale_filters(resnet, 0.25) == resnet


def test_a_variant_is_called_by_its_combination_and_described():
    variants = {variant.name: variant for variant in planned(designs=["add-one", "combinations", "pairs"]).variants}
    assert variants["best"].changes == ("adam", "norm", "flip")
    assert variants["best"].summary == "the best of all"
    assert variants["other"].summary == "momentum 0.9 + 3x3"  # that combination has no summary of its own
    assert variants["norm+flip"].summary == "batch normalization + flips"
    assert variants["baseline"].summary == "the baseline"


def test_only_and_skip_select_changes():
    assert {it.name for it in planned(only=["adam", "norm"]).variants} == {"baseline", "adam", "norm"}
    assert {it.name for it in planned(only=["adam", "norm"], skip=["norm"]).variants} == {"baseline", "adam"}
    assert "norm" not in {it.name for it in planned(skip=["norm"]).variants}


def test_a_selection_that_leaves_nothing_to_compare_is_refused():
    with pytest.raises(StudyError, match=r"add-one: nothing to compare: no change is selected.*--design combinations"):
        planned(only=["best"])
    with pytest.raises(StudyError, match="nothing to compare"):
        planned(only=["norm"], skip=["norm"])


def test_a_study_without_changes_trains_its_baseline():
    plan = planned(load_study("task2"))
    assert [variant.name for variant in plan.variants] == ["baseline"]
    assert plan.notes == ("add-one: nothing to compare: the study declares no changes.",)


def test_everything_wrong_in_a_request_is_reported_at_once():
    with pytest.raises(StudyError) as error:
        planned(only=["nrom"], skip=["kernel"], designs=["add-on"], overrides={"training.max_epochs": 0}, seeds=[1, 1])
    problems = "\n".join(error.value.problems)
    assert len(error.value.problems) == 5
    assert (
        "--only nrom: study 'small' has no such change. Did you mean 'norm'? It has momentum, adam, norm," in problems
    )
    assert "--skip kernel: study 'small' has no such change. Did you mean 'kernel-" in problems
    assert "unknown design 'add-on'. Did you mean 'add-one'?" in problems
    assert "settings of this run: training.max_epochs: input should be greater than 0" in problems
    assert "seeds 1, 1: expected different whole numbers from 0" in problems


def test_an_unknown_profile_is_refused_with_those_that_there_are():
    with pytest.raises(StudyError, match=r"no profile 'quik'. Did you mean 'quick'\? It has: standard, quick"):
        planned(profile="quik")


def test_a_change_that_alters_nothing_is_refused_also_through_a_profile_or_the_request():
    study = small_study(changes=[change("short", training__max_epochs=3)], combinations=[], paths={})
    assert len(planned(study).variants) == 2
    with pytest.raises(StudyError, match=r"'short' leaves the baseline as it is \(training.max_epochs is already 3\)"):
        planned(study, profile="quick")
    with pytest.raises(StudyError, match="leaves the baseline as it is"):
        planned(study, overrides={"training.max_epochs": 3})


def test_changes_that_are_not_used_need_not_fit_the_profile():
    study = small_study(
        changes=[change("short", training__max_epochs=3), change("norm", model__batch_norm=True)],
        combinations=[],
        paths={},
    )
    assert len(planned(study, profile="quick", skip=["short"]).variants) == 2


def test_variants_with_the_same_settings_are_refused_by_name():
    twins = [change("three", model__kernel_size=3), change("trois", model__kernel_size=3)]
    with pytest.raises(StudyError, match="variants 'three' and 'trois' have the same settings"):
        planned(small_study(changes=twins, combinations=[], paths={}))


def test_filters_that_the_scale_makes_equal_are_refused():
    study = small_study(changes=[change("wide", model__filters=[33, 65, 129])], combinations=[], paths={})
    with pytest.raises(StudyError, match="variants 'baseline' and 'wide' have the same settings"):
        planned(study, profile="quick")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (["kernel-3", "kernel-7"], r"'kernel-3' and 'kernel-7' exclude each other \(group 'kernel'\)"),
        (["flip", "augment"], "'flip' and 'augment' both set augmentation.horizontal_flip"),
        (["momentum", "adam"], "momentum 0.9 is set, but adam takes none"),
    ],
)
def test_a_combination_that_cannot_be_is_refused_by_name(members, reason):
    both = Combination(name="both", changes=members)  # a file of two of them is refused when it is loaded
    study = small_study().model_copy(update={"combinations": (both,)})
    with pytest.raises(StudyError, match=reason):
        planned(study, designs=["combinations"])


def test_the_id_is_the_same_for_more_seeds_and_more_variants_and_another_for_other_settings_or_data():
    plan = planned()
    assert planned(seeds=[4]).id == planned(only=["norm"]).id == planned(designs=["pairs"]).id == plan.id
    assert plan.id.startswith("small-standard-")
    others = [
        planned(profile="quick"),
        planned(overrides={"training.max_epochs": 2}),
        planned(fingerprints=lambda settings: {"data": "other"}),
    ]
    assert len({plan.id, *(other.id for other in others)}) == 4


def test_a_manifest_is_plain_json_and_names_variants_cells_and_comparisons():
    plan = planned(designs=["leave-one-out:best"], seeds=[5, 0])
    manifest = Manifest.from_json(json.loads(json.dumps(plan.manifest("harness ablate").to_json())))
    assert manifest == plan.manifest("harness ablate")
    assert manifest.comparisons[0] == RunComparison("leave-one-out:best", "adam", "best", "norm+flip")
    assert manifest.variant("best").cells == dict(zip([5, 0], keys(plan)["best"], strict=True))
    assert manifest.command == "harness ablate"


def test_manifests_of_more_seeds_and_more_designs_add_up():
    first, second = planned(seeds=[2, 0], only=["norm"]), planned(seeds=[1], designs=["add-one", "combinations"])
    both = extended(first.manifest(), second.manifest())
    cells = {it.name: list(it.cells) for it in both.variants}
    assert cells["baseline"] == cells["norm"] == [0, 1, 2]
    assert cells["best"] == [1]
    assert len(both.comparisons) == 7 + 2
    assert extended(both, second.manifest()) == both


def test_cells_of_a_change_that_was_edited_are_not_mixed_with_the_new_ones():
    def study(dropout):
        return small_study(changes=[change("drop", model__dropout=dropout)], combinations=[], paths={})

    before, after = planned(study(0.2), seeds=[0, 1, 2]), planned(study(0.3), seeds=[0])
    assert before.id == after.id
    both = extended(before.manifest(), after.manifest())
    assert both.variant("drop").cells == {0: after.variants[1].cells[0].key}
    assert len(both.variants[0].cells) == 3


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (0, 1, 2)), ("4,", (4,)), ("3,5,8", (3, 5, 8)), (" 8 , 3,", (8, 3)), ("0,", (0,)), ("1", (0,))],
)
def test_seeds_are_a_count_or_a_list(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1,,2", ",", "1 2", "²", "0", "1,1", "1000000", "1,-2", "1e3"])
def test_other_seeds_are_refused(text):
    with pytest.raises(StudyError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize(("name", "profile"), [(name, it) for name in studies() for it in load_study(name).profiles])
def test_every_built_in_study_plans_in_every_profile(name, profile):
    study = load_study(name)
    few = ["add-one", "combinations", "leave-one-out", "path", "pairs", "fractional"]
    designs = [design for design in few if not design_problems(study, design)]
    assert "add-one" in designs
    plan = planned(study, profile=profile, designs=designs)
    assert len(plan.cells) == len(plan.variants) * len(plan.seeds)
    assert len(plan.seeds) == study.profiles[profile].seeds


@pytest.mark.slow
def test_a_hundred_thousand_cells_are_planned_within_three_seconds():
    """Three seconds are thirteen times what their keys alone take, whatever else the machine does meanwhile."""
    study, seeds = independent(13), range(13)
    started = time.process_time()
    for _ in range(2**13):
        head = hashlib.sha256(json.dumps(study.baseline.identity(), sort_keys=True).encode())
        for seed in seeds:
            key = head.copy()
            key.update(str(seed).encode())
            key.hexdigest()
    keys = time.process_time() - started
    plan = planned(study, designs=["factorial"], seeds=seeds)
    assert len(plan.cells) == 2**13 * 13 == 106_496
    assert time.process_time() - started - keys < 13 * keys
