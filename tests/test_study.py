"""Studies: YAML to a frozen value; every mistake found at once, with file, place and the next step."""

import re

import pytest

from harness.errors import StudyError
from harness.study.load import load_study, registry, studies
from harness.study.yaml_file import read_yaml
from harness.trainers.images.settings import Settings

HEAD = "name: mine\ntitle: Mine\nbaseline: {data: {kind: shapes}}\n"


@pytest.fixture
def write(tmp_path):
    def write(text, head=HEAD):
        path = tmp_path / "mine.yaml"
        path.write_text(head + text, encoding="utf-8")
        return path

    return write


def problems(path):
    """What is wrong with a file, without the file's name, which every sentence must start with."""
    with pytest.raises(StudyError) as error:
        load_study(path)
    assert all(problem.startswith(str(path)) for problem in error.value.problems)
    return [re.sub(r"^[: ]+", "", problem.removeprefix(str(path))) for problem in error.value.problems]


def test_there_are_built_in_studies():
    assert {"task2", "task3"} <= set(studies())


@pytest.mark.parametrize("name", studies())
def test_every_built_in_study_loads_by_name_and_by_path(name):
    study = load_study(name)
    assert study.name == name
    assert load_study(studies()[name]) == study
    assert study.profiles["standard"].seeds == 10
    assert not study.profiles["standard"].exploratory
    assert all(profile.summary for profile in study.profiles.values())


@pytest.mark.parametrize("name", ["task2", "task3"])
def test_the_quick_profile_is_exploratory_and_needs_no_file(name):
    study = load_study(name)
    assert study.profiles["quick"].exploratory
    assert study.profiles["quick"].overrides["data"]["kind"] == "shapes"


def test_task3_declares_the_changes_of_the_report():
    names = {change.name for change in load_study("task3").changes}
    assert names == {
        "optimizer-adamax",
        "filters-64-128-256",
        "filters-128-256-512",
        "batch-norm",
        "batch-norm-fc",
        "l2-1e-5",
        "l2-1e-3",
        "dropout-0.2",
        "dropout-0.6",
        "kernel-3",
        "kernel-7",
        "augment-harsh",
        "augment-gentle",
        "pooling-average",
        "pooling-stride",
    }


def test_a_study_may_use_changes_of_the_registry_by_name(write):
    study = load_study(write("changes: [batch-norm, {name: mine, summary: x, overrides: {model.dropout: 0.4}}]"))
    assert study.changes[0] == registry()["batch-norm"]
    assert study.changes[1].name == "mine"


def test_a_number_with_an_exponent_is_a_number(write):
    study = load_study(write("changes: [{name: l2, summary: x, overrides: {optimizer: {weight_decay: 1e-3}}}]"))
    assert study.changes[0].overrides == {"optimizer.weight_decay": 0.001}


@pytest.mark.parametrize("text", ["1e-3", "1E3", "+1e+3", "-1.e-3", ".5e-2", "1.5e3"])
def test_every_spelling_of_an_exponent_is_a_number(tmp_path, text):
    (tmp_path / "x.yaml").write_text(f"[{text}, e{text}, '{text}']")
    number, *others = read_yaml(tmp_path / "x.yaml")
    assert number == float(text)
    assert others == [f"e{text}", text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: Again\n", "4:1: the key 'title' stands twice. The file must be YAML with each key once."),
        ("profiles:\n  quick: {seeds: 1, seeds: 2}\n", "5:21: the key 'seeds' stands twice"),
        ("changes: [\n", "expected"),
        ("1: 2\n", "4:1: the key 1 is not a text"),
        ("yes: 2\n", "4:1: the key True is not a text"),
        ("{[1]: 2}\n", ""),
        ("? [1]\n: 2\n", "the key [1] is not a text"),
        ("published: !!python/object:os.system {}\n", "could not determine a constructor"),
    ],
)
def test_yaml_that_cannot_be_meant_is_refused_with_line_and_column(write, text, message):
    (problem,) = problems(write(text))
    assert message in problem
    assert re.match(r"\d+:\d+: ", problem)


def test_merge_keys_and_anchors_work(write):
    study = load_study(write("profiles: {standard: &s {seeds: 4}, other: {<<: *s, exploratory: true}}"))
    assert study.profiles["other"].seeds == 4


@pytest.mark.parametrize("content", [b"", b"- a\n", b"just text\n", b"42\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert "expected a mapping with the keys of a study" in problems(path)[0]


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as YAML" in problems(path)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chagnes: []", "chagnes: unknown key 'chagnes'. Did you mean 'changes'?"),
        (
            "changes: [batchnorm]",
            "changes[0]: unknown change 'batchnorm'. Did you mean 'batch-norm'? `harness changes`",
        ),
        (
            "changes: [{name: x, summary: x, overrides: {model.dropuot: 0.1}}]",
            "change 'x': unknown setting 'model.dropuot'. Did you mean 'model.dropout'?",
        ),
        (
            "changes: [{name: x, summary: x, overrides: {model.dropout: 0.1}, gruop: a}]",
            "changes[0].gruop: unknown key 'gruop'. Did you mean 'group'?",
        ),
        (
            "changes: [{name: x, summary: x, overrides: {model.dropout: .nan}}]",
            "change 'x': model.dropout: input should be a finite number (found nan)",
        ),
        (
            "changes: [{name: x, summary: x, overrides: {model.dropout: 2}}]",
            "change 'x': model.dropout: input should be less than 1",
        ),
        (
            "changes: [{name: x, summary: x, overrides: {model.pooling: max}}]",
            "change 'x' leaves the baseline as it is (model.pooling is already 'max')",
        ),
        ("changes: [batch-norm, batch-norm]", "the name 'batch-norm' stands more than once"),
        (
            "changes: [batch-norm]\ncombinations: [{name: batch-norm, changes: [batch-norm]}]",
            "the name 'batch-norm' stands more than once",
        ),
        (
            "changes: [kernel-3, kernel-7]\ncombinations: [{name: c, changes: [kernel-3, kernel-7]}]",
            "combinations: c: changes 'kernel-3' and 'kernel-7' exclude each other (group 'kernel').",
        ),
        (
            "changes: [batch-norm, {name: x, summary: x, overrides: {model: {batch_norm: true, dropout: 0.1}}}]\n"
            "combinations: [{name: c, changes: [x, batch-norm]}]",
            "changes 'x' and 'batch-norm' both set model.batch_norm; a combination may set each setting once.",
        ),
        (
            "changes: [batch-norm]\ncombinations: [{name: c, changes: [batchnorm]}]",
            "combinations: c: unknown change 'batchnorm'. Did you mean 'batch-norm'?",
        ),
        (
            "changes: [batch-norm, kernel-3]\ncombinations: [{name: a, changes: [batch-norm, kernel-3]}, "
            "{name: b, changes: [kernel-3, batch-norm]}]",
            "combinations: 'a' and 'b' hold the same changes",
        ),
        ("changes: [batch-norm]\npaths: {p: [batch-norm, batchnorm]}", "paths: p: unknown change 'batchnorm'."),
        ("changes: [batch-norm]\npaths: {p: [batch-norm, batch-norm]}", "'batch-norm' stands twice in one combination"),
        ("designs: [add-on]", "designs: unknown design 'add-on'. Did you mean 'add-one'?"),
        ("designs: [leave-one-out]", "designs: design 'leave-one-out': study 'mine' declares no combinations."),
        ("designs: []", "designs: list should have at least 1 item"),
        ("profiles: {}", "profiles: dictionary should have at least 1 item"),
        ("profiles: {quick: {seeds: 0}}", "profiles.quick.seeds: input should be greater than 0"),
        ("profiles: {quick: {seeds: yes}}", "profiles.quick.seeds: input should be a valid integer (found True)"),
        (
            "profiles: {quick: {overrides: {training: {max_epoch: 3}}}}",
            "profiles: quick: unknown setting 'training.max_epoch'. Did you mean 'training.max_epochs'?",
        ),
        ("profiles: {Quick: {}}", "profiles.Quick: 'Quick' is no name"),
        (
            "published: [{variant: baselin, metric: test/accuracy, value: 0.7, source: x}]",
            "published: unknown variant 'baselin'. Did you mean 'baseline'?",
        ),
        (
            "published: [{variant: baseline, metric: test_accuracy, value: 0.7, source: x}]",
            "published: unknown metric 'test_accuracy'. Did you mean 'test/accuracy'? There are: train/loss,",
        ),
        ("published: [{variant: baseline, metric: val/loss, value: .inf, source: x}]", "finite number"),
        (
            "published_curves: [{figure: F, variant: baseline, source: x, epochs: [1, 2], values: {val/loss: [1]}}]",
            "val/loss has 1 values, but there are 2 epochs",
        ),
        (
            "published_curves: [{figure: F, variant: baseline, source: x, epochs: [2, 1], values: {val/loss: [1, 2]}}]",
            "epochs: expected rising numbers",
        ),
        (
            "changes: [batch-norm]\npublished_curves: "
            "[{figure: F, variant: batchnorm, source: x, epochs: [1, 2], values: {val/loss: [1, 2]}}]",
            "published_curves[0]: unknown variant 'batchnorm'. Did you mean 'batch-norm'?",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_next_step(write, text, message):
    (problem,) = problems(write(text))
    assert message in problem


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("{model: {kernel_size: 4, kind: convnet}}", "baseline.model.kernel_size: must be odd"),
        ("{data: {seed: 3}}", "baseline.data.kind: required, but missing"),
        ("{model: {kind: convent}}", "baseline.model.kind: unknown 'convent'; expected 'convnet'"),
        ("{optimizer: {learning_rate: -1e-3}}", "baseline.optimizer.learning_rate: input should be greater than 0"),
        (
            "{optimizer: {learning_rat: 1e-3}}",
            "baseline.optimizer.learning_rat: unknown key 'learning_rat'. Did you mean",
        ),
        ("{model: 3}", "baseline.model: input should be"),
        ("[]", "baseline: expected a mapping of settings, not []"),
    ],
)
def test_a_wrong_baseline_is_named_with_its_path(write, baseline, message):
    (problem,) = problems(write(f"baseline: {baseline}\n", head="name: mine\ntitle: Mine\n"))
    assert message in problem


def test_everything_wrong_is_reported_at_once(write):
    text = """
name: Mine
baselin: {}
baseline:
  model: {kind: convnet, filters: [1, two]}
  optimizer: {learning_rate: -1e-3}
changes:
  - batchnorm
  - {name: zero, summary: x, overrides: {preprocessing.resize: null}}
  - {name: nan, summary: x, overrides: {augmentation.grayscale: .nan}}
  - {name: lost, summary: x, override: {training.patience: 3}}
  - {name: doubtful, summary: x, overrides: {optimizer.learning_rate: 0.05}}
  - {name: three, summary: x, overrides: {training.batch_size: 3}}
  - {name: four, summary: x, overrides: {training.batch_size: 4}}
combinations:
  - {name: both, changes: [three, four, lost, fvie]}
profiles: {quick: {seed: 1}}
published:
  - {variant: lost, metric: val/loss, value: 1, source: x}
  - {variant: nobody, metric: val/loss, value: 1, source: x}
"""
    found = problems(write(text, head=""))
    expected = [
        "changes[0]: unknown change 'batchnorm'. Did you mean 'batch-norm'?",
        "name: 'Mine' is no name",
        "baselin: unknown key 'baselin'. Did you mean 'baseline'?",
        "baseline.model.filters[1]: input should be a valid integer (found 'two')",
        "baseline.optimizer.learning_rate: input should be greater than 0",
        "changes[3].overrides: required, but missing",
        "changes[3].override: unknown key 'override'",
        "profiles.quick.seed: unknown key 'seed'. Did you mean 'seeds'?",
        "changes: change 'zero' leaves the baseline as it is",
        "changes: change 'nan': augmentation.grayscale: input should be a finite number",
        "combinations: both: changes 'three' and 'four' both set training.batch_size",
        "combinations: both: unknown change 'fvie'",
        "published: unknown variant 'nobody'",
    ]
    for message in expected:
        assert sum(problem.startswith(message) for problem in found) == 1, message
    assert len(found) == len(expected)  # nothing about 'lost', which is wrong itself, nor 'doubtful', whose branch is


@pytest.mark.parametrize("extra", ["changes: 3", "changes: {a: 1}", "combinations: x", "profiles: []", "published: {}"])
def test_a_part_of_the_wrong_shape_is_named(write, extra):
    (problem,) = problems(write(extra))
    assert problem.startswith(extra.partition(":")[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("task33", "unknown study 'task33'. Did you mean 'task3'? `harness studies` lists all"),
        ("nowhere/task3.yaml", "nowhere/task3.yaml: no such file. `harness studies` lists the built-in studies."),
        ("nothing.yml", "nothing.yml: no such file"),
    ],
)
def test_a_study_that_is_not_there_is_refused_with_the_nearest(name, message):
    with pytest.raises(StudyError, match=re.escape(message)):
        load_study(name)


def test_a_folder_is_no_study(tmp_path):
    with pytest.raises(StudyError, match="no such file"):
        load_study(tmp_path)


def test_a_study_without_a_baseline_has_the_reports(write):
    assert load_study(write("", head="name: mine\ntitle: Mine\n")).baseline == Settings()
