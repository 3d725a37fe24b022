"""What MLflow should hold, computed by hand from hand-written journals; no MLflow."""

import json
import math
from datetime import datetime

import pytest
from tracked import PROVENANCE, a_manifest, a_result, cells_of, finish, start, train, validate

from harness.store.cells import Cells
from harness.tracking.ledger import Entry
from harness.tracking.outline import Outline
from harness.tracking.run_image import RunImage, cell_image, group_status, params, read_record, shortened
from harness.tracking.summary import record_summary, summary_artifacts, summary_points


@pytest.fixture
def cells(tmp_path):
    return Cells(tmp_path)


@pytest.fixture
def cell():
    return cells_of()[0]


def image_of(cells: Cells, cell) -> RunImage:
    record = read_record(cells, cell.key)
    assert record
    return cell_image(
        record,
        key="k",
        study_id="s",
        name="baseline seed 0",
        tags={"harness.study": "task3"},
        kept=cells.kept_files(record.key),
    )


def values(image: RunImage, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in image.points if point.key == key]


def test_a_cell_that_has_not_started_has_no_run(cells, cell):
    assert read_record(cells, cell.key) is None
    cells.open(cell)
    assert read_record(cells, cell.key) is None


def test_curves_are_at_optimizer_steps_with_the_journals_times(cells, cell):
    start(cells, cell)
    validate(cells, cell, 100, val_accuracy=0.25)
    validate(cells, cell, 200, val_accuracy=0.5)
    image = image_of(cells, cell)
    assert values(image, "val/accuracy") == [(100, 0.25), (200, 0.5)]
    assert {point.key for point in image.points} == {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    written = datetime.fromisoformat(cells.events(cell.key)[1]["time"]).timestamp() * 1000
    assert image.points[0].timestamp_ms == round(written)


def test_the_numbers_of_the_end_stand_at_the_best_step(cells, cell):
    train(cells, cell, peak_memory_bytes=4096)
    image = image_of(cells, cell)
    at_the_end = {
        "train/loss:best": [(100, 1.5)],
        "train/accuracy:best": [(100, 0.5)],
        "val/loss:best": [(100, 1.6)],
        "val/accuracy:best": [(100, 0.45)],
        "test/loss:best": [(100, 1.7)],
        "test/accuracy:best": [(100, 0.4)],
        "epoch/best": [(100, 0.5)],
        "seconds": [(200, 20.0)],
        "parameters": [(200, 1000.0)],
        "peak_memory_bytes": [(200, 4096.0)],
    }
    assert {key: values(image, key) for key in at_the_end} == at_the_end
    assert len(image.points) == 2 * 4 + len(at_the_end)


def test_numbers_of_ones_own_keep_their_names_and_texts_become_tags(cells, cell):
    start(cells, cell)
    cells.append(cell.key, {"event": "validation", "step": 3, "metrics": {"dev/nll_per.token": 2.5}, "seconds": 1.0})
    metrics, facts = {"dev/nll_per.token": 2.5, "held_out/nll-1": 2.75}, {"tokens": 900, "converged": True}
    finish(
        cells, cell, metrics=metrics, facts=facts | {"tokenizer": "bpe", "lr@end": 0.5, "odd": math.nan}, num_steps=4
    )
    image = image_of(cells, cell)
    assert [(point.key, point.step, point.value) for point in image.points] == [
        ("dev/nll_per.token", 3, 2.5),
        ("dev/nll_per.token:best", 4, 2.5),  # training did not say at which step it is best
        ("held_out/nll-1:best", 4, 2.75),
        ("seconds", 4, 20.0),
        ("tokens", 4, 900.0),
        ("converged", 4, 1.0),
        ("lr_end", 4, 0.5),
    ]
    assert {name: it for name, it in image.tags.items() if "fact" in name} == {"harness.fact.tokenizer": "bpe"}


def test_settings_that_name_no_data_have_no_data_set(cells, cell):
    start(cells, cell)
    path = cells.folder(cell.key) / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": {"rate": 0.5}, "fingerprints": {}}))
    image = image_of(cells, cell)
    assert image.dataset is None
    assert image.params == {"rate": "0.5", "seed": "0"}


def test_a_validation_that_an_interruption_repeats_counts_once(cells, cell):
    start(cells, cell)
    validate(cells, cell, 100)
    validate(cells, cell, 200, val_accuracy=0.3)
    before = image_of(cells, cell)
    start(cells, cell, "resumed")
    validate(cells, cell, 200, val_accuracy=0.3)
    after = image_of(cells, cell)
    assert [step for step, _ in values(after, "val/accuracy")] == [100, 200]
    assert after.digest(8) == before.digest(8)  # although the second one came later
    validate(cells, cell, 200, val_accuracy=0.4)
    assert image_of(cells, cell).digest(8) != before.digest(8)


def test_an_attempt_from_the_start_forgets_the_earlier_one(cells, cell):
    start(cells, cell)
    validate(cells, cell, 100)
    validate(cells, cell, 200)
    start(cells, cell, "restarted")
    validate(cells, cell, 100, val_loss=9.0)
    assert values(image_of(cells, cell), "val/loss") == [(100, 9.0)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_becomes_a_flag_raised_once(cells, cell, bad):
    start(cells, cell)
    validate(cells, cell, 100)
    validate(cells, cell, 200, train_loss=bad)
    validate(cells, cell, 300, train_loss=bad, val_loss=bad)
    finish(cells, cell, status="diverged", reason="loss is not finite", num_steps=300)
    image = image_of(cells, cell)
    assert values(image, "diverged") == [(200, 1.0)]
    assert values(image, "train/loss") == [(100, 1.9)]
    assert all(math.isfinite(point.value) for point in image.points)


def test_a_cell_that_diverges_between_validations_is_flagged_too(cells, cell):
    start(cells, cell)
    finish(cells, cell, status="diverged", num_steps=40)
    assert values(image_of(cells, cell), "diverged") == [(40, 1.0)]


@pytest.mark.parametrize(
    ("status", "run_status"),
    [("finished", "FINISHED"), ("diverged", "FAILED"), ("out-of-memory", "FAILED"), ("failed", "FAILED")],
)
def test_an_ended_cell_says_how(cells, cell, status, run_status):
    train(cells, cell, status=status, reason="because")
    image = image_of(cells, cell)
    assert (image.state, image.status, image.tags["harness.reason"]) == (status, run_status, "because")
    assert image.end_ms
    assert image.end_ms >= image.start_ms


def test_a_cell_without_a_result_is_running_only_while_a_process_holds_it(cells, cell):
    with cells.claim(cell):
        start(cells, cell)
        image = image_of(cells, cell)
        assert (image.state, image.status, image.end_ms) == ("running", "RUNNING", None)
    assert (image_of(cells, cell).state, image_of(cells, cell).status) == (
        "interrupted",
        "KILLED",
    )  # died without a word
    cells.append(cell.key, {"event": "interrupted", "signal": "SIGTERM"})
    assert image_of(cells, cell).status == "KILLED"
    cells.append(cell.key, {"event": "failed", "reason": "no such file", "traceback": "Traceback ..."})
    image = image_of(cells, cell)
    assert (image.status, image.tags["harness.reason"]) == ("FAILED", "no such file")
    assert {artifact.name: artifact.source for artifact in image.artifacts}["traceback.txt"] == "Traceback ..."


def test_a_death_between_the_last_event_and_the_result_is_no_end(cells, cell):
    start(cells, cell)
    cells.append(cell.key, {"event": "ended", **a_result(cell).to_json()})
    image = image_of(cells, cell)
    assert image.status == "KILLED"
    assert not image.points


def test_settings_diff_and_best_weights_are_kept_once_the_cell_has_finished(cells, cell):
    start(cells, cell)
    (cells.folder(cell.key) / "best.safetensors").write_bytes(b"early")
    early = image_of(cells, cell)
    assert [artifact.name for artifact in early.artifacts] == ["settings.json", "uncommitted.diff"]
    finish(cells, cell)
    kept = {artifact.name: artifact.source for artifact in image_of(cells, cell).artifacts}
    assert kept["best.safetensors"] == cells.folder(cell.key) / "best.safetensors"
    assert kept["uncommitted.diff"] == PROVENANCE["diff"]
    settings = json.loads(kept["settings.json"])["settings"]
    assert settings == cell.settings.model_dump(mode="json")


def test_where_a_number_comes_from_is_in_the_tags_of_its_last_attempt(cells, cell):
    start(cells, cell)
    cells.append(cell.key, {"event": "resumed", "provenance": {**PROVENANCE, "commit": "beef", "dirty": False}})
    tags = image_of(cells, cell).tags
    assert tags["mlflow.source.git.commit"] == "beef"
    assert tags["harness.dirty"] == "false"
    assert tags["harness.version.torch"] == "2.15.0"
    assert tags["harness.study"] == "task3"


def test_params_are_dotted_paths_to_what_was_asked(cells, cell):
    start(cells, cell)
    asked = image_of(cells, cell).params
    assert asked["optimizer.learning_rate"] == "0.05"
    assert asked["model.filters"] == "[32, 64, 128]"
    assert asked["model.batch_norm"] == "false"
    assert asked["seed"] == "0"
    assert asked["fingerprint.data"] == "abc" * 20


def test_a_param_is_shortened_openly_and_a_strange_name_is_made_acceptable():
    long = params({"options": {"my@name": "x" * 9000}})
    assert list(long) == ["options.my_name"]
    assert len(long["options.my_name"]) <= 6000
    assert long["options.my_name"].endswith("... (9000 characters)")
    assert shortened("x" * 6000, 6000) == "x" * 6000


@pytest.mark.parametrize(
    ("states", "is_live", "status"),
    [
        (["finished", "finished"], False, "FINISHED"),
        (["finished", "finished"], True, "FINISHED"),
        (["finished", "diverged"], True, "FAILED"),
        (["finished", "failed"], False, "FAILED"),
        (["finished", "waiting"], True, "RUNNING"),
        (["finished", "waiting"], False, "KILLED"),
        (["finished", "running"], False, "RUNNING"),
        (["failed", "interrupted"], False, "KILLED"),
        (["waiting"], False, "KILLED"),
    ],
)
def test_a_group_ends_when_its_last_cell_does(states, is_live, status):
    assert group_status(states, is_live=is_live) == status


def test_the_same_cell_has_other_runs_in_other_variants_studies_and_stores():
    baseline = cells_of()
    manifest = a_manifest({"baseline": baseline, "placebo": baseline})
    other = a_manifest({"baseline": baseline}, study="task4")
    first, second = manifest.variants
    key = baseline[0].key
    keys = {
        Outline(manifest, "here").cell_key(first, key),
        Outline(manifest, "here").cell_key(second, key),
        Outline(manifest, "there").cell_key(first, key),
        Outline(other, "here").cell_key(other.variants[0], key),
        Outline(manifest, "here").variant_key(first),
        Outline(manifest, "here").study_key,
    }
    assert len(keys) == 6


def test_a_group_lasts_from_its_first_cell_to_its_last():
    baseline = cells_of()
    outline = Outline(a_manifest({"baseline": baseline}), "here")
    variant = outline.manifest.variants[0]
    entries = {
        (key := outline.cell_key(variant, cell.key)): Entry(
            key=key, study_id=outline.id, state="finished", start_ms=1000 - cell.seed, end_ms=2000 + cell.seed
        )
        for cell in baseline
    }
    image = outline.variant_image(variant, entries, parent="run", is_live=False)
    assert (image.start_ms, image.end_ms, image.status) == (999, 2001, "FINISHED")


def test_a_summary_becomes_numbers_by_variant_and_each_revision_a_step(tmp_path):
    row = {"variant": "batch-norm", "n": 2, "mean": 0.5, "low": math.nan, "label": "text", "is_best": True}
    record_summary(tmp_path, "s", [row], {})
    record_summary(tmp_path, "s", [row], {})  # the same again: no revision
    record_summary(tmp_path, "s", [{**row, "mean": 0.6}], {})
    points = summary_points(tmp_path, "s", "test/accuracy")["batch-norm"]
    assert [(point.key, point.step, point.value) for point in points] == [
        ("test/accuracy:best/n", 0, 2.0),
        ("test/accuracy:best/mean", 0, 0.5),
        ("test/accuracy:best/n", 1, 2.0),
        ("test/accuracy:best/mean", 1, 0.6),
    ]


def test_files_of_a_summary_survive_the_originals(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("first")
    record_summary(tmp_path / "store", "s", [], {"report/page.html": report})
    (first,) = summary_artifacts(tmp_path / "store", "s")
    report.write_text("second one")
    record_summary(tmp_path / "store", "s", [], {"report/page.html": report})
    report.unlink()
    (second,) = summary_artifacts(tmp_path / "store", "s")
    assert second.source.read_text() == "second one"
    assert second.name == "report/page.html"
    assert first.version != second.version
