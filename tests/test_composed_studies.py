"""Studies built on others, lists of values, changes that need another: what they mean, and what is wrong."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.api.work import plan_work
from harness.cli import cli
from harness.errors import StudyError
from harness.plan.plan import make_plan
from harness.search.space import Space
from harness.study.changes import combine
from harness.study.designs.factorials import greedy_candidates
from harness.study.load import load_study, studies
from harness.study.resolved import resolved_study
from harness.study.yaml_file import read_yaml, write_yaml
from tests.studies import change, small_study

EXAMPLES = Path(__file__).parents[1] / "examples"
BASE = """
baseline: {data: {kind: shapes}, optimizer: {learning_rate: 0.1}}
changes:
  - {name: norm, overrides: {model.batch_norm: true}}
  - {name: "drop-{}", overrides: {model.dropout: [0.2, 0.5]}}
  - {name: kernel-3, overrides: {model.kernel_size: 3}}
combinations: [{name: both, changes: [norm, kernel-3]}]
paths: {report: [kernel-3, norm]}
profiles: {standard: {seeds: 4}, quick: {seeds: 2, skip: [kernel-3]}}
"""


@pytest.fixture
def write(tmp_path):
    """Writes files by name, and gives the path of the last one."""
    (tmp_path / "base.yaml").write_text(BASE)

    def write(text="", **others):
        for name, content in {**others, "mine": text}.items():
            (tmp_path / f"{name}.yaml").write_text(content)
        return tmp_path / "mine.yaml"

    return write


def names(study):
    return [it.name for it in study.changes]


def test_a_study_that_extends_another_has_its_parts_under_its_own_name(write):
    base, mine = load_study(write("extends: base.yaml").parent / "base.yaml"), load_study(write("extends: base.yaml"))
    assert (mine.name, mine.title) == ("mine", "mine")
    assert mine.model_copy(update={"name": "base", "title": "base", "built_on": ""}) == base
    assert mine.built_on == "mine extends base.yaml: as it is."


def test_changes_are_replaced_in_their_place_dropped_and_added(write):
    mine = load_study(
        write("""
extends: base.yaml
drop: [both, report, norm]
changes:
  - {name: kernel-3, summary: three, overrides: {model.kernel_size: 7}}
  - {name: wide, overrides: {model.hidden_units: 128}}
""")
    )
    assert names(mine) == ["drop-0.2", "drop-0.5", "kernel-3", "wide"]
    assert mine.change("kernel-3").overrides == {"model.kernel_size": 7}
    assert (mine.combinations, mine.paths) == ((), {})
    assert mine.built_on == "mine extends base.yaml: replaces kernel-3; adds wide; drops both, report, norm."


def test_the_baseline_is_laid_over_leaf_by_leaf_and_another_kind_replaces_the_branch(write):
    below = "baseline: {data: {kind: shapes, train_images: 500}, optimizer: {learning_rate: 0.1, momentum: 0.9}}"
    mine = load_study(
        write("extends: low.yaml\nbaseline: {data: {kind: cifar10}, optimizer.learning_rate: 0.3}", low=below)
    )
    assert (mine.baseline.optimizer.learning_rate, mine.baseline.optimizer.momentum) == (0.3, 0.9)
    assert mine.baseline.data.kind == "cifar10"


def test_profiles_combinations_and_designs_of_ones_own_win(write):
    mine = load_study(
        write("""
extends: base.yaml
drop: [kernel-3, report]
designs: [combinations]
combinations: [{name: both, changes: [norm, drop-0.5]}]
profiles: {quick: {seeds: 1}, long: {seeds: 30}}
""")
    )
    assert mine.designs == ("combinations",)
    assert [it.changes for it in mine.combinations] == [("norm", "drop-0.5")]
    assert {name: it.seeds for name, it in mine.profiles.items()} == {"standard": 4, "quick": 1, "long": 30}


def test_a_dropped_change_is_skipped_by_no_profile_any_more(write):
    assert load_study(write("extends: base.yaml\ndrop: [kernel-3, both, report]")).profiles["quick"].skip == ()


def test_studies_extend_each_other_in_a_chain(write):
    middle = "extends: base.yaml\ndrop: ['drop-{}']\nbaseline: {optimizer.momentum: 0.5}\n"
    mine = load_study(write("extends: middle.yaml\nbaseline: {optimizer.learning_rate: 0.2}", middle=middle))
    assert names(mine) == ["norm", "kernel-3"]
    assert (mine.baseline.optimizer.learning_rate, mine.baseline.optimizer.momentum) == (0.2, 0.5)
    assert "middle extends base.yaml: sets optimizer.momentum; drops drop-0.2, drop-0.5." in mine.built_on


def test_a_list_of_values_is_replaced_and_dropped_as_a_whole_or_one_by_one(write):
    whole = load_study(write('extends: base.yaml\nchanges: [{name: "drop-{}", overrides: {model.dropout: [0.1]}}]'))
    assert names(whole) == ["norm", "drop-0.1", "kernel-3"]
    assert names(load_study(write("extends: base.yaml\ndrop: [drop-0.2]"))) == ["norm", "drop-0.5", "kernel-3"]
    one = load_study(write("extends: base.yaml\nchanges: [{name: drop-0.2, overrides: {model.dropout: 0.25}}]"))
    assert one.change("drop-0.2").overrides == {"model.dropout": 0.25}
    assert names(one) == ["norm", "drop-0.2", "drop-0.5", "kernel-3"]


def test_training_of_ones_own_is_found_in_the_folder_of_the_study_that_names_it(tmp_path):
    shutil.copytree(EXAMPLES / "digits", tmp_path / "digits")
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: digits/digits.yaml\nbaseline: {batch_size: 64}\n")
    study = load_study(mine)
    assert study.trainer == load_study(tmp_path / "digits" / "digits.yaml").trainer
    assert study.baseline.values["batch_size"] == 64
    with pytest.raises(StudyError, match="batch_size: expected at least 1, not 0"):
        load_study(_written(tmp_path / "mine.yaml", "extends: digits/digits.yaml\nbaseline: {batch_size: 0}\n"))


def _written(path, text):
    path.write_text(text)
    return path


def test_a_list_of_values_makes_a_change_each_of_one_group(write):
    study = load_study(
        write("""
changes:
  - {name: "lr-{}", summary: "a rate of {}", overrides: {optimizer.learning_rate: [1e-3, 3e-3, 1e-5, 1.0]}}
  - {name: "filters-{}", overrides: {model: {filters: [[8, 8], [16, 16]]}}}
  - {name: wide, overrides: {model.filters: [64, 64, 64]}}
""")
    )
    assert names(study) == ["lr-0.001", "lr-0.003", "lr-1e-5", "lr-1", "filters-8-8", "filters-16-16", "wide"]
    assert [it.group for it in study.changes] == ["lr"] * 4 + ["filters"] * 2 + [""]
    assert study.change("lr-0.003").summary == "a rate of 0.003"
    assert study.change("lr-1e-5").overrides == {"optimizer.learning_rate": 1e-5}
    assert study.change("filters-16-16").overrides == {"model.filters": [16, 16]}


def needing(**more):
    """norm; scale needs norm; deep needs scale; wide by itself."""
    return small_study(
        changes=[
            change("norm", model__batch_norm=True),
            change("scale", model__batch_norm_fc=True) | {"needs": "norm"},
            change("deep", model__dropout=0.5) | {"needs": "scale"},
            change("wide", model__hidden_units=128),
        ],
        **{"combinations": [], "paths": {}} | more,
    )


def sides(plan):
    return {(it.design, it.label): (it.variant, it.reference) for it in plan.comparisons}


def test_a_change_that_needs_another_is_compared_with_that_one():
    plan = make_plan(needing())
    assert sides(plan) == {
        ("add-one", "norm"): (("norm",), ()),
        ("add-one", "wide"): (("wide",), ()),
        ("on-top:norm", "scale"): (("norm", "scale"), ("norm",)),
        ("on-top:norm+scale", "deep"): (("norm", "scale", "deep"), ("norm", "scale")),
    }
    assert "on-top:norm: scale needs norm, and is compared with norm." in plan.notes


def test_whoever_selects_a_change_selects_what_it_needs_and_skips_what_needs_it():
    assert {label for _, label in sides(make_plan(needing(), only=["scale"]))} == {"norm", "scale"}
    skipped = make_plan(needing(), skip=["norm"])
    assert {label for _, label in sides(skipped)} == {"wide"}
    assert "deep is left out, too: it needs scale." in skipped.notes
    with pytest.raises(StudyError, match="--only scale: needs 'norm', which is skipped"):
        make_plan(needing(), only=["scale"], skip=["norm"])


@pytest.mark.parametrize("design", ["pairs", "factorial", "fractional", "add-one"])
def test_no_design_holds_a_change_without_what_it_needs(design):
    plan = make_plan(needing(), designs=[design])
    for changes in [it.changes for it in plan.variants]:
        assert "scale" not in changes or "norm" in changes
        assert "deep" not in changes or "scale" in changes
    assert any("need" in note for note in plan.notes)
    assert len(plan.variants) > 2


def test_a_factorial_holds_every_set_that_is_whole():
    assert len(make_plan(needing(), designs=["factorial"]).variants) == 4 * 2  # none, n, ns, nsd; with and without wide


def test_what_another_change_needs_is_not_left_out_of_a_combination():
    study = needing(combinations=[{"name": "all", "changes": ["norm", "scale", "wide"]}])
    plan = make_plan(study, designs=["leave-one-out"])
    assert {label for _, label in sides(plan)} == {"scale", "wide"}
    assert "leave-one-out:all: norm stays, for scale needs it." in plan.notes


def test_a_greedy_path_takes_a_change_after_what_it_needs():
    study = needing()
    assert greedy_candidates(study, names(study), []) == (("norm",), ("wide",))
    assert greedy_candidates(study, names(study), ["norm"]) == (("norm", "scale"), ("norm", "wide"))


def test_a_search_never_tries_a_change_without_what_it_needs():
    space = Space.of(make_plan(needing()))
    tried = list(space.by_distance())
    assert len(tried) == len(set(tried)) == 8
    assert space.why_not(("scale", "wide")) == (
        "change 'scale' makes sense only with 'norm', which is not there (needs)."
    )
    assert space.full() == ("norm", "scale", "deep", "wide")
    assert list(space.first()) == [(), ("norm",), ("norm", "scale"), ("norm", "scale", "deep"), ("wide",), space.full()]


def test_a_variant_is_never_made_without_what_a_change_needs():
    study = needing()
    with pytest.raises(StudyError, match="makes sense only with 'norm'"):
        combine(study.baseline, [study.change("scale")])


def test_a_change_that_alters_nothing_on_top_of_what_it_needs_is_refused():
    with pytest.raises(StudyError, match="change 'b' leaves 'a' as it is"):
        small_study(
            changes=[change("a", optimizer__name="adam"), change("b", model__pooling="max") | {"needs": "a"}],
            combinations=[],
            paths={},
        )


EXTENDS = "extends: base.yaml\n"
LIST = 'changes: [{name: "lr-{}", overrides: %s}]'
WRONG: dict[str, tuple[str, str]] = {
    "a study that is not there": ("extends: bsae.yaml", "bsae.yaml: no such file; expected a path relative to"),
    "a mistyped built-in study": ("extends: task33", "extends: unknown study 'task33'. Did you mean 'task3'?"),
    "extends that is no text": ("extends: [base.yaml]", "extends: expected the name of a study, or the path"),
    "extends that is empty": ("extends: ''", "extends: expected the name of a study, or the path"),
    "a circle of one": ("extends: mine.yaml", "studies extend each other in a circle (mine.yaml > mine.yaml)"),
    "a circle of two": ("extends: other.yaml", "in a circle (mine.yaml > other.yaml > mine.yaml)"),
    "a base that is no mapping": ("extends: list.yaml", "list.yaml: expected a mapping with the keys of a study"),
    "a base that is wrong": ("extends: wrong.yaml", "wrong.yaml: changes[0].overrides: required, but missing"),
    "drop without extends": ("drop: [norm]", "drop: there is nothing to drop from; `extends:` names"),
    "drop of what is not there": (
        EXTENDS + "drop: [nrm]",
        "drop: 'nrm' is nothing that the extended study has. Did you",
    ),
    "drop that is no list": (
        EXTENDS + "drop: both",
        "drop: expected a list of names of changes, combinations or paths",
    ),
    "drop twice": (EXTENDS + "drop: [both, both]", "drop: 'both' stands twice"),
    "drop of what is declared": (
        EXTENDS + "drop: [drop-0.2]\nchanges: [{name: drop-0.2, overrides: {model.dropout: 0.3}}]",
        "drop: 'drop-0.2' is declared here, too, which replaces it",
    ),
    "drop of what a combination holds": (
        EXTENDS + "drop: [norm, report]",
        "combinations: both: holds or needs 'norm', which is dropped; drop it as well, or declare it anew",
    ),
    "drop of what a path holds": (
        EXTENDS + "drop: [norm, both]",
        "paths: report: holds or needs 'norm', which is dropped",
    ),
    "drop of what a change needs": (
        EXTENDS + "drop: [norm, both, report]\n"
        "changes: [{name: scale, needs: norm, overrides: {model.batch_norm_fc: true}}]",
        "changes: scale: holds or needs 'norm', which is dropped",
    ),
    "a place counts in the file that has it": (
        EXTENDS + "changes: [{name: x, overrides: {model.dropout: 0.1}}, {name: y, summary: y}]",
        "changes[1].overrides: required, but missing",
    ),
    "a setting that does not exist": (
        EXTENDS + "baseline: {optimizer.learning_rat: 1}",
        "baseline.optimizer.learning_rat: unknown key 'learning_rat'. Did you mean 'learning_rate'?",
    ),
    "a change that the new baseline makes empty": (
        EXTENDS + "baseline: {model.kernel_size: 3, model.kind: convnet}",
        "change 'kernel-3' leaves the baseline as it is",
    ),
    "what only the loader may say": ("built_on: task3", "built_on: unknown key 'built_on'; `extends:` names"),
    "no list for a value": (LIST % "{optimizer.learning_rate: 0.1}", "the name holds {}; none is."),
    "two lists for one value": (
        LIST % "{optimizer.learning_rate: [0.1], model.filters: [8]}",
        "for the name holds {}; optimizer.learning_rate and model.filters are.",
    ),
    "no overrides for a value": ('changes: [{name: "lr-{}"}]', "exactly one override must be a list of values"),
    "two places for one value": (
        'changes: [{name: "{}-{}", overrides: {model.dropout: [0.1]}}]',
        "name '{}-{}': expected {} once, where the value goes",
    ),
    "an empty list": (LIST % "{optimizer.learning_rate: []}", "optimizer.learning_rate: the list of values is empty"),
    "a value twice": (LIST % "{optimizer.learning_rate: [1e-3, 0.001]}", "optimizer.learning_rate: 0.001 stands twice"),
    "a value without a name": (LIST % "{optimizer.learning_rate: [null]}", "None cannot stand in a name; name that"),
    "a value that is not allowed": (
        LIST % "{optimizer.learning_rate: [0.1, -1]}",
        "change 'lr-minus-1': optimizer.learning",
    ),
    "a value that is the baseline's": (
        LIST % "{optimizer.learning_rate: [0.1, 0.05]}",
        "change 'lr-0.05' leaves the base",
    ),
    "two values in one combination": (
        (LIST % "{optimizer.learning_rate: [0.1, 0.2]}") + "\ncombinations: [{name: c, changes: [lr-0.1, lr-0.2]}]",
        "changes 'lr-0.1' and 'lr-0.2' exclude each other (group 'lr')",
    ),
    "a need that is not there": (
        "changes: [batch-norm, {name: x, needs: batchnorm, overrides: {model.dropout: 0.1}}]",
        "change 'x' needs 'batchnorm', which no change of this study is called. Did you mean 'batch-norm'?",
    ),
    "a need of itself": ("changes: [{name: x, needs: x, overrides: {model.dropout: 0.1}}]", "change 'x' needs itself"),
    "a need that is no name": (
        "changes: [{name: x, needs: [A b], overrides: {model.dropout: 0.1}}]",
        "changes[0].needs[0]: 'A b' is no name",
    ),
    "a need of what excludes it": (
        "changes: [kernel-3, {name: x, group: kernel, needs: kernel-3, overrides: {model.dropout: 0.1}}]",
        "changes 'kernel-3' and 'x' exclude each other (group 'kernel'). Yet 'x' needs 'kernel-3'.",
    ),
    "a need of what sets the same": (
        "changes: [dropout-0.2, {name: x, needs: dropout-0.2, overrides: {model.dropout: 0.1}}]",
        "both set model.dropout; a combination may set each setting once. Yet 'x' needs",
    ),
    "a need of a combination": (
        "changes: [batch-norm, {name: x, needs: c, overrides: {model.dropout: 0.1}}]\n"
        "combinations: [{name: c, changes: [batch-norm]}]",
        "change 'x' needs 'c', a combination; needs names one change",
    ),
    "a combination without what is needed": (
        "changes: [batch-norm, kernel-3, {name: x, needs: batch-norm, overrides: {model.dropout: 0.1}}]\n"
        "combinations: [{name: c, changes: [x, kernel-3]}]",
        "combinations: c: change 'x' makes sense only with 'batch-norm', which is not there",
    ),
    "a path before what is needed": (
        "changes: [batch-norm, {name: x, needs: batch-norm, overrides: {model.dropout: 0.1}}]\n"
        "paths: {p: [x, batch-norm]}",
        "paths: p: change 'x' comes before 'batch-norm', which it needs; put it after",
    ),
}
OTHERS = {"other": "extends: mine.yaml", "list": "- a\n", "wrong": "changes: [{name: x, summary: x}]"}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_study_is_told_in_one_clear_sentence(write, case):
    text, message = WRONG[case]
    with pytest.raises(StudyError) as error:
        load_study(write(text, **OTHERS))
    (problem,) = error.value.problems
    assert re.match(r"\S+\.yaml: ", problem)
    assert message in problem


def test_there_are_thirty_wrong_studies():
    assert len(WRONG) >= 30


def test_a_circle_of_needs_is_told_of_each_change_on_it(write):
    text = "changes: [{name: x, needs: y, overrides: {model.dropout: 0.1}}, {name: y, needs: x, overrides: {%s: 9}}]"
    with pytest.raises(StudyError) as error:
        load_study(write(text % "training.patience"))
    assert [it.partition("changes: ")[2] for it in error.value.problems] == [
        "change 'x' stands on a circle of needs (x > y).",
        "change 'y' stands on a circle of needs (y > x).",
    ]


def test_everything_wrong_with_a_composed_study_is_told_at_once(write):
    text = """
extends: base.yaml
drop: [nrm, kernel-3]
chagnes: []
baseline: {optimizer.learning_rate: -1}
changes:
  - {name: "lr-{}", overrides: {training.patience: 3}}
  - {name: x, needs: y, overrides: {model.batch_norm_fc: true}}
"""
    with pytest.raises(StudyError) as error:
        load_study(write(text))
    found = [it.partition("mine.yaml: ")[2] for it in error.value.problems]
    expected = ["changes[0]: change 'lr-{}'", "drop: 'nrm'", "combinations: both: holds", "paths: report: holds"]
    expected += ["baseline.optimizer.learning_rate: input", "chagnes: unknown key", "changes: change 'x' needs 'y'"]
    for start in expected:
        assert sum(it.startswith(start) for it in found) == 1, (start, found)
    assert len(found) == len(expected)


def keys(path, profile):
    return {it.name: [cell.key for cell in it.cells] for it in plan_work(path, profile=profile).plan.variants}


def shown_beside(path, folder):
    shown = folder / f"shown-{path.name}"
    shown.write_text(write_yaml(resolved_study(path)))
    return shown


@pytest.mark.parametrize("name", studies())
def test_a_built_in_study_as_shown_has_the_same_cells(name, tmp_path):
    shown = shown_beside(studies()[name], tmp_path)
    assert load_study(shown) == load_study(name)
    assert keys(shown, "quick") == keys(name, "quick")
    assert resolved_study(shown) == resolved_study(name)


@pytest.mark.parametrize("name", sorted(it.name for it in EXAMPLES.iterdir() if it.is_dir()))
def test_an_example_as_shown_has_the_same_cells(name, tmp_path):
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    written = tmp_path / name / f"{name}.yaml"
    shown = shown_beside(written, written.parent)
    for profile in load_study(written).profiles:
        assert keys(shown, profile) == keys(written, profile)
    assert resolved_study(shown) == resolved_study(written)


def test_a_composed_study_as_shown_has_the_same_cells(tmp_path):
    shutil.copytree(EXAMPLES / "digits", tmp_path / "digits")
    mine = _written(
        tmp_path / "mine.yaml",
        """
extends: digits/digits.yaml
drop: [all-four]
baseline: {batch_size: 64}
changes:
  - {name: "fast-{}", overrides: {learning_rate: [0.2, 0.3]}}
  - {name: wider, needs: centered, overrides: {model.hidden: 128}}
""",
    )
    shown = shown_beside(mine, tmp_path)
    assert "extends" not in read_yaml(shown)
    assert read_yaml(shown)["baseline"]["batch_size"] == {"default": 64, "min": 1}
    assert keys(shown, "quick") == keys(mine, "quick")
    assert len(keys(mine, "quick")) == 1 + 4 + 2 + 1


def test_a_text_that_looks_like_a_number_is_shown_in_quotes(tmp_path):
    path = _written(tmp_path / "x.yaml", write_yaml({"text": "1e-3", "number": 1e-3, "no": "no"}))
    assert read_yaml(path) == {"text": "1e-3", "number": 0.001, "no": "no"}


def blocks(path, heading):
    """The YAML of one section of a document."""
    section = (EXAMPLES.parent / path).read_text().partition(f"{heading}\n")[2]
    return re.findall(r"```yaml\n(.*?)```", re.split(r"\n##+ ", section)[0], re.DOTALL)


def test_the_study_of_the_readme_works(write):
    (text,) = blocks("README.md", "### Studies built on others")
    study = load_study(write(text))
    assert {"momentum-0.5", "momentum-0.9", "batch-norm-all"} <= set(names(study))
    assert ("on-top:batch-norm", "batch-norm-all") in sides(make_plan(study, profile="quick"))


def test_the_studies_of_the_document_work(tmp_path):
    shutil.copy(EXAMPLES / "script" / "train.py", tmp_path)
    (changes,) = blocks("docs/training.md", "## Changes with several values, and with conditions")
    (extending,) = blocks("docs/training.md", "## A study built on another")
    head = """
trainer: {command: [python, train.py, --lr, "{lr}"]}
metrics: {val/accuracy: {goal: maximize}, test/accuracy: {goal: maximize}}
select: val/accuracy
report: test/accuracy
baseline: {lr: 0.1, optimizer: sgd, amsgrad: false, epochs: {default: 20, min: 1}, hidden: 8}
"""
    wide = "  - {name: wide, overrides: {hidden: 16}}\n"
    below = load_study(_written(tmp_path / "study.yaml", head + changes + wide))
    above = load_study(_written(tmp_path / "above.yaml", extending))
    assert names(below) == ["lr-0.001", "lr-0.003", "lr-0.01", "adam", "amsgrad", "wide"]
    assert names(above) == ["adam", "amsgrad", "slow"]
    assert (above.baseline.values["epochs"], set(above.profiles)) == (50, {"standard", "long"})


def test_metrics_are_taken_over_by_their_whole_name(write):
    below = """
trainer: {command: [python, "{a}"], sources: {pinned: v1}}
baseline: {a: 1}
metrics: {val/top.5: {goal: maximize}, test/top.5: {goal: maximize}}
select: val/top.5
report: test/top.5
"""
    above = "extends: low.yaml\nreport: test/loss\nmetrics: {test/loss: {goal: minimize}, val/top.5: {goal: minimize}}"
    metrics = load_study(write(above, low=below)).trainer.metrics
    assert set(metrics.names) == {"val/top.5", "test/top.5", "test/loss"}
    assert (metrics.selecting.goal, metrics.report) == ("minimize", "test/loss")


def test_show_prints_a_file_and_plan_says_what_was_built_on(write, tmp_path):
    path = str(write("extends: base.yaml\ndrop: [drop-0.5]"))
    shown = CliRunner().invoke(cli, ["show", path])
    assert shown.exit_code == 0
    assert [it["name"] for it in read_yaml(_written(tmp_path / "y.yaml", shown.output))["changes"]] == [
        "norm", "drop-0.2", "kernel-3",
    ]  # fmt: skip
    planned = CliRunner().invoke(cli, ["plan", "--study", path, "--store", str(tmp_path / "mlruns")])
    assert "note: mine extends base.yaml: drops drop-0.5." in planned.output
    wrong = CliRunner().invoke(cli, ["show", str(write("extends: nothing"))])
    assert (wrong.exit_code, wrong.output.count("error: ")) == (2, 1)
