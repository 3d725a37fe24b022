"""Changes: what alters nothing is an error, what cannot go together is refused by name."""

import pytest
from own import write_study
from pydantic import ValidationError

from harness.api.training import Placebos
from harness.api.work import plan_work
from harness.errors import StudyError
from harness.execution.executor import Progress
from harness.names import suggestion
from harness.plan.cell import Cell
from harness.problems import problems_of
from harness.store.result import Result
from harness.study.changes import Change, check_change, combine, conflicts, placebo_problem
from harness.study.load import load_study, registry, studies
from harness.trainers.images.settings import Settings, with_overrides


def change(name="x", group="", **overrides):
    dotted = {path.replace("__", "."): value for path, value in overrides.items()}
    return Change(name=name, summary=name, group=group, overrides=dotted)


NORM, DROP = change("norm", model__batch_norm=True), change("drop", model__dropout=0.2)
THREE, SEVEN = change("three", "kernel", model__kernel_size=3), change("seven", "kernel", model__kernel_size=7)


def test_a_combination_does_not_depend_on_the_order():
    assert combine(Settings(), [NORM, DROP, THREE]) == combine(Settings(), [THREE, NORM, DROP])
    assert combine(Settings(), []) == Settings()


def test_nested_and_dotted_overrides_are_the_same():
    nested = Change(name="x", summary="x", overrides={"optimizer": {"name": "adam", "learning_rate": 1e-3}})
    assert nested.overrides == {"optimizer.name": "adam", "optimizer.learning_rate": 1e-3}


def test_members_of_a_group_exclude_each_other():
    assert conflicts([THREE, NORM, SEVEN]) == ["changes 'three' and 'seven' exclude each other (group 'kernel')."]
    assert (
        conflicts([change("a", model__dropout=0.1), change("b", model__batch_norm=True)]) == []
    )  # no group is no group


def test_two_changes_of_one_setting_are_refused_with_both_and_the_setting():
    adam, adamax = change("adam", optimizer__name="adam"), change("adamax", optimizer__name="adamax")
    expected = "changes 'adam' and 'adamax' both set optimizer.name; a combination may set each setting once."
    assert conflicts([adam, adamax]) == [expected]
    with pytest.raises(StudyError, match=r"both set optimizer\.name"):
        combine(Settings(), [adam, adamax])


def test_all_conflicts_are_reported_at_once():
    assert len(conflicts([THREE, SEVEN, change("five", model__kernel_size=5), NORM, NORM])) == 4


def test_a_change_twice_is_refused():
    assert conflicts([NORM, NORM]) == ["change 'norm' stands twice in one combination."]


def test_values_that_do_not_go_together_are_refused_by_the_names_of_the_changes():
    momentum, adam = change("momentum", optimizer__momentum=0.9), change("adam", optimizer__name="adam")
    with pytest.raises(StudyError, match=r"momentum \+ adam: optimizer: momentum 0.9 is set, but adam takes none"):
        combine(Settings(), [momentum, adam])


@pytest.mark.parametrize(
    "overrides",
    [{"model__pooling": "max"}, {"model__dropout": 0}, {"model__filters": [32, 64, 128]}, {"model__kind": "convnet"}],
)
def test_a_change_that_alters_nothing_is_refused(overrides):
    (problem,) = check_change(Settings(), change(**overrides))
    assert "leaves the baseline as it is" in problem
    assert "is already" in problem
    assert "zero by construction" in problem


def test_a_change_that_alters_something_besides_is_fine():
    assert check_change(Settings(), change(model__pooling="max", model__dropout=0.1)) == []


def test_an_unknown_setting_is_refused_with_the_nearest():
    (problem,) = check_change(Settings(), change(model__kernel=3))
    assert problem == "change 'x': unknown setting 'model.kernel'. Did you mean 'model.kernel_size'?"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -1, "0.2", True])
def test_a_value_that_is_not_allowed_is_refused(value):
    (problem,) = check_change(Settings(), change(model__dropout=value))
    assert problem.startswith("change 'x': model.dropout: ")


def test_a_change_of_the_kind_may_set_what_the_new_kind_has():
    assert check_change(Settings(), change(model__kind="resnet18", model__weights="none")) == []
    (problem,) = check_change(Settings(), change(model__kind="resnet18", model__filters=[8]))
    assert problem == "change 'x': model.filters: unknown key"
    assert check_change(Settings(), change(model__weights="none"))  # without the kind, convnet has no weights
    plugin = with_overrides(Settings(), {"model.kind": "plugin", "model.factory": "a:b"})
    assert check_change(plugin, change(model__options__depth=3)) == []


@pytest.mark.parametrize("name", ["Batch-Norm", "batch_norm", "-a", "a-", "a--b", "", "a+b", "a b", "baseline", "ä"])
def test_names_are_kebab_case(name):
    with pytest.raises(ValidationError) as error:
        change(name, model__dropout=0.1)
    assert "is no name" in problems_of(error.value)[0]


@pytest.mark.parametrize("unread", [[], [""], ["model"], ["optim"], ["optimizer.name"], ["optimizer.momentum"]])
def test_a_change_of_which_training_read_something_is_no_placebo(unread):
    assert placebo_problem("adam", ["optimizer.name", "optimizer.momentum"], unread) == ""


@pytest.mark.parametrize("unread", [["optimizer.name", "optimizer.momentum", "model"], ["optimizer"]])
def test_a_change_of_which_training_read_nothing_is_a_placebo(unread):
    problem = placebo_problem("adam", ["optimizer.name", "optimizer.momentum"], unread)
    assert problem.startswith("change 'adam' is a placebo: training never reads optimizer.name, optimizer.momentum, so")
    assert "--skip" in problem


@pytest.mark.parametrize("missing", ["name", "overrides"])
def test_name_and_overrides_are_required(missing):
    whole = {"name": "x", "summary": "x", "overrides": {"model.dropout": 0.1}}
    Change.model_validate(whole)
    with pytest.raises(ValidationError):
        Change.model_validate({key: value for key, value in whole.items() if key != missing})
    with pytest.raises(ValidationError):
        Change.model_validate(whole | {missing: {} if missing == "overrides" else ""})


def test_a_change_without_a_summary_says_what_it_sets_and_an_empty_one_is_refused():
    declared = {"name": "x", "overrides": {"model": {"dropout": 0.1}, "optimizer.name": "adam"}}
    assert Change.model_validate(declared).summary == "model.dropout = 0.1, optimizer.name = adam"
    with pytest.raises(ValidationError):
        Change.model_validate(declared | {"summary": ""})


def test_the_nearest_name_is_suggested_or_none():
    assert suggestion("batchnorm", ["dropout", "batch-norm"]) == " Did you mean 'batch-norm'?"
    assert suggestion("zzz", ["dropout", "batch-norm"]) == ""


@pytest.mark.parametrize(
    ("name", "known", "nearest"),
    [
        ("gradient_clip", "augmentation.horizontal_flip", ""),
        ("gradient_clip", "horizontal_flip", ""),
        ("augmentation.gradient_clip", "augmentation.horizontal_flip", ""),  # the branch that they share is no nearness
        ("optimizer.nesterov", "optimizer.name", ""),
        ("standard", "std", ""),
        ("x" * 30_000, "x" * 90, ""),
        ("optimizer.lerning_rate", "optimizer.learning_rate", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate", "optimizer.learning_rate"),
        ("model.kernel", "model.kernel_size", "model.kernel_size"),
        ("nrom", "norm", "norm"),
        ("accuracy", "test/accuracy", "test/accuracy"),
    ],
)
def test_a_suggestion_is_near_or_there_is_none(name, known, nearest):
    assert suggestion(name, [known, "something else"]) == (f" Did you mean {nearest!r}?" if nearest else "")


def test_the_registry_holds_the_changes_of_every_built_in_study():
    declared = {it.name for name in studies() for it in load_study(name).changes}
    assert set(registry()) == declared
    assert len(registry()) >= 15


@pytest.mark.parametrize("name", registry())
def test_every_change_of_the_registry_says_what_it_is_and_alters_its_baseline(name):
    homes = [load_study(study) for study in studies() if any(it.name == name for it in load_study(study).changes)]
    assert homes
    for study in homes:
        assert study.change(name) == registry()[name]  # one name means one thing in all built-in studies
        assert check_change(study.baseline, registry()[name]) == []
        assert combine(study.baseline, [registry()[name]]) != study.baseline
    assert registry()[name].summary
    assert registry()[name].source


def test_placebos_are_looked_for_among_the_variants_of_an_ended_cell_alone(tmp_path, monkeypatch):
    """Else each end is compared with every cell: of 100,000 cells, the square."""
    work = plan_work(write_study(tmp_path), store=tmp_path / "store", device="cpu")
    placebos = Placebos(work)
    last = next(it for it in work.plan.variants if it.name == "ignored").cells[-1]
    result = Result(key=last.key, seed=last.seed, status="finished", facts={"settings_unread": "never"})
    compared = []
    monkeypatch.setattr(Cell, "__eq__", lambda one, other: compared.append(one) or one is other)

    placebos.see(Progress("ended", last, result=result))

    assert set(placebos.problems) == {"ignored"}
    assert placebos.is_refused(last)
    assert not placebos.is_refused(work.plan.variants[0].cells[0])
    assert compared == []
