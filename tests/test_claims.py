import json
import math
import os
import resource
import subprocess
import sys

import pytest
from click.testing import CliRunner
from schemas import fitting
from synthetic import Numbers, synthetic_plan, synthetic_store

from harness.claims import STATUSES, Finding, NotRunError, check_claims
from harness.claims.effects import Better, Biggest, ChangeEffect
from harness.claims.numbers import Bound, Gain, Number
from harness.claims.report import report_claims
from harness.claims.report.arithmetic import (
    CaptionAgainstTable,
    CoarserMaps,
    Computed,
    LossBesideAccuracy,
    LossOrAccuracy,
    ResizedSides,
    largest_accuracy,
    largest_loss,
    resnet18_ends,
)
from harness.claims.report.runs import ReportEvidence
from harness.claims.report.training import Faster, NoOverfitting
from harness.cli.claims import claims as command
from harness.store.cells import Cells
from harness.study.load import load_study, studies
from harness.trainers.images.model_summary import summarize
from harness.trainers.images.settings import ResNet18

DESIGNS = ("add-one", "combinations", "path:report")


def found_in(cells: Cells) -> dict[str, Finding]:
    return {claim.name: found for claim, found in check_claims(report_claims(), ReportEvidence(cells))}


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    """What is found without any results."""
    return found_in(Cells(tmp_path_factory.mktemp("empty")))


def standard_run(root, numbers=None, *, seeds=10, designs=DESIGNS, only=()):
    """A run of task3 by the report's protocol, with made-up numbers."""
    plan = synthetic_plan(profile="standard", designs=designs, seeds=seeds, only=only)
    return synthetic_store(root, plan, numbers or Numbers(baseline=0.742))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What is found with ten seeds of everything that task3 can compare."""
    return found_in(standard_run(tmp_path_factory.mktemp("standard")))


def test_claims_have_names_of_their_own_and_a_source():
    claims = report_claims()
    assert len(claims) > 50
    assert len({claim.name for claim in claims}) == len(claims)
    assert all(claim.source and claim.text for claim in claims)


def test_every_published_number_of_every_study_is_a_claim():
    checks = [claim.check for claim in report_claims() if isinstance(claim.check, Number)]
    published = {(it.variant, it.metric, it.value) for name in studies() for it in load_study(name).published}
    assert {(it.variant, it.metric, it.printed) for it in checks} == published
    assert len(published) >= 12


# By hand: the assignment's image and kernel, and (kernel^2 * channels + 1) * filters.
CORRECTED = {
    "convolution-row-1": (2, -1, 11, -2, -13),
    "parameters-conv2": 51_264,
    "parameters-conv3": 204_928,
    "parameters-total": 390_410,
    "test-loss": "test accuracy 0.7422",
    "model-1-train-loss": "loss at most 0.3424 at that accuracy",
    "model-1-caption": 0.7742,
    "resize": (224, 224),
}
CONFIRMED = {
    "convolution-size": (3, 5),
    "convolution-row-2": (10, -4, 8, 2, -18),
    "convolution-row-3": (14, -1, -5, 6, -9),
    "same-padding": 2,
    "kernel-size": 9,
    "pooled-size": 252,
    "second-size": 250,
    "parameters-conv1": 2432,
    "parameters-linear1": 131_136,
    "parameters-linear2": 650,
    "flattened-shape": (4, 4, 128),
    "flattened-length": (2048,),
}


def test_the_reports_errors_and_no_others_are_corrected_at_once(at_once):
    assert {name: it.ours for name, it in at_once.items() if it.status == "corrected"} == CORRECTED


def test_what_is_right_in_task_1_is_confirmed_at_once(at_once):
    confirmed = {name: it.ours for name, it in at_once.items() if it.status == "confirmed"}
    assert confirmed.pop("last-layer-size")
    assert confirmed == CONFIRMED


def test_the_rest_waits_for_results_and_says_which_command_makes_them(at_once):
    rest = {name: it for name, it in at_once.items() if name not in {*CORRECTED, *CONFIRMED, "last-layer-size"}}
    assert {it.status for it in rest.values()} == {"not run"}
    assert rest["batch-norm-biggest"].how == (
        "`harness ablate --study task3 --design add-one,combinations,path:report` makes what this takes."
    )
    undecidable = {name for name, it in rest.items() if "harness ablate" not in it.how}
    assert undecidable == {"translation", "first-layer", "last-layer"}


@pytest.mark.parametrize(
    ("check", "status"),
    [
        (Computed(3, lambda: 3, ""), "confirmed"),
        (Computed(3, lambda: 4, ""), "corrected"),
        (Computed((1, 2), lambda: (1, 3), ""), "corrected"),
        # A loss above the training loss, and far from the validation accuracy: it may be what it says.
        (LossOrAccuracy(0.95, train_loss=0.8677, val_accuracy=0.7413), "confirmed"),
        (LossOrAccuracy(0.60, train_loss=0.8677, val_accuracy=0.7413), "confirmed"),
        (LossOrAccuracy(0.7422, train_loss=0.8677, val_accuracy=0.7413), "corrected"),
        (LossBesideAccuracy(0.30, 0.9433, control=(0.0791, 0.9782)), "confirmed"),
        (LossBesideAccuracy(0.35, 0.9433, control=(0.0791, 0.9782)), "corrected"),
        (CaptionAgainstTable(0.75, test_accuracy=0.7742, val_accuracy=0.7698), "confirmed"),
        (CaptionAgainstTable(0.77, test_accuracy=0.7698, val_accuracy=0.7742), "confirmed"),
        (ResizedSides((224, 224)), "confirmed"),
        (ResizedSides((224, 244)), "corrected"),
    ],
)
def test_a_check_by_computation_can_end_either_way(check, status, tmp_path):
    assert check(ReportEvidence(Cells(tmp_path))).status == status


def test_the_largest_loss_is_fanos_bound():
    # Chance among ten classes: ln 10. Certainty: 0. Half right: ln 2 + ln(9) / 2.
    assert largest_loss(0.1) == pytest.approx(math.log(10))
    assert largest_loss(1.0) == 0
    assert largest_loss(0.5) == pytest.approx(math.log(2) + math.log(9) / 2)
    assert all(largest_accuracy(largest_loss(it)) == pytest.approx(it) for it in (0.2, 0.5, 0.7, 0.99))


def test_no_distribution_with_right_probabilities_exceeds_the_largest_loss():
    """The entropy of random distributions over ten classes, guessed by their largest probability."""
    import numpy as np

    rows = np.random.default_rng(0).dirichlet(np.full(10, 0.3), 5000)
    entropy = -np.sum(rows * np.log(np.maximum(rows, 1e-300)), axis=1)
    assert all(entropy[i] <= largest_loss(rows[i].max()) + 1e-9 for i in range(5000))
    assert entropy.mean() <= largest_loss(rows.max(axis=1).mean())  # and so does their mean: the bound is concave


def test_the_described_resnet18_is_the_built_one():
    rows = {row.layer: row for row in summarize(ResNet18(), 10, image_size=(224, 224)).rows}
    for field, row in zip(resnet18_ends(), (rows["conv1"], rows["layer4.1.conv2"]), strict=True):
        assert (field.size, field.stride) == (row.receptive_field, row.total_stride)
        assert (field.output_size,) * 2 == row.output_shape[1:]
    assert CoarserMaps()(ReportEvidence(Cells.__new__(Cells))).status == "confirmed"


def test_the_studys_resize_is_what_the_weights_demand():
    from torchvision.models import ResNet18_Weights

    baseline = load_study("task4").baseline.preprocessing
    demanded = ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert [baseline.resize] == demanded.crop_size
    assert (list(baseline.mean), list(baseline.std)) == (demanded.mean, demanded.std)


def test_measured_claims_are_decided_with_intervals(measured):
    decided = [it for it in measured.values() if it.n is not None]
    assert len(decided) > 25
    assert all(it.status in ("confirmed", "not reproduced") for it in decided)
    assert all(it.low < it.ours < it.high and it.n == 10 for it in decided)


def test_planted_effects_decide_the_claims_about_changes(measured):
    """synthetic.EFFECTS: batch-norm .034, filters .015, adamax .012, dropout-0.2 .004, l2-1e-5 0, kernels below 0."""
    status = {name: it.status for name, it in measured.items()}
    for name in ("batch-norm-improves", "filters-improve", "adamax-improves", "batch-norm-biggest"):
        assert status[name] == "confirmed", name
    for name in ("kernel-3", "kernel-7", "augmentation", "augmentation-harsh", "model-2-over-80"):
        assert status[name] == "confirmed", name
    for name in ("l2-improves", "pooling-stride"):
        assert status[name] == "not reproduced", name
    assert measured["batch-norm-improves"].ours == pytest.approx(0.034, abs=0.004)
    # The path's step is the effect less two interactions: 0.034 - 0.008.
    assert measured["batch-norm-gain"].ours == pytest.approx(0.026, abs=0.004)
    assert measured["batch-norm-gain"].status == "confirmed"


def test_a_printed_number_is_confirmed_only_where_another_run_could_land(tmp_path):
    one = {"designs": ("add-one",), "only": ("kernel-3",)}
    near, far = standard_run(tmp_path / "near", **one), standard_run(tmp_path / "far", Numbers(baseline=0.70), **one)
    number = Number("task3", "baseline", "test/accuracy", 0.7422)
    first, second = number(ReportEvidence(near)), number(ReportEvidence(far))
    assert (first.status, second.status) == ("confirmed", "not reproduced")
    assert second.low < 0.70 < second.high
    assert "one more run of ours would land in [0.6" in second.how


def test_the_opposite_of_each_verbal_claim_is_not_reproduced(tmp_path):
    reversed_effects = {
        "optimizer-adamax": -0.02,
        "kernel-3": 0.03,
        "pooling-average": 0.03,
        "batch-norm": 0.01,
        "filters-64-128-256": 0.03,
        "dropout-0.6": -0.4,
    }
    evidence = ReportEvidence(standard_run(tmp_path, Numbers(effects=reversed_effects)))
    checks = [
        ChangeEffect("task3", "optimizer-adamax", "improves"),
        ChangeEffect("task3", "kernel-3", "no improvement", noticeable=0.01),
        ChangeEffect("task3", "pooling-average", "no difference", noticeable=0.01),
        Biggest("task3", "batch-norm", ("filters-64-128-256", "l2-1e-5")),
        Biggest("task3", "batch-norm", ("filters-64-128-256", "l2-1e-5"), design="path:report"),
        Better("task3", "model-2", "model-1"),
        Bound("task3", "model-2", "test/accuracy", 0.8),
        Gain("task3", "path:report", "batch-norm", 0.1),
    ]
    assert [check(evidence).status for check in checks] == ["not reproduced"] * len(checks)
    assert "minus that of filters-64-128-256, the strongest of 2 rivals" in checks[3](evidence).how
    assert Biggest("task3", "filters-64-128-256", ("batch-norm", "l2-1e-5"))(evidence).status == "confirmed"
    assert ChangeEffect("task3", "kernel-3", "improves")(evidence).status == "confirmed"


@pytest.mark.slow
def test_a_margin_over_a_neighbouring_step_counts_what_they_share_once(tmp_path):
    """batch-norm's step starts where the step of the filters ends, so that this variant has weight -2 in the margin."""
    effects = {"filters-64-128-256": 0.05, "batch-norm": 0.02}
    evidence = ReportEvidence(standard_run(tmp_path, Numbers(effects=effects, interactions={}, noise=0.0005)))
    margin = Biggest("task3", "batch-norm", ("filters-64-128-256",), design="path:report")(evidence)
    assert margin.ours == pytest.approx(-0.03, abs=0.001)


@pytest.mark.slow
def test_three_seeds_decide_numbers_but_no_effects(tmp_path):
    found = found_in(standard_run(tmp_path, seeds=3))
    assert found["task3-model-2-test-accuracy"].status in ("confirmed", "not reproduced")
    for name in ("batch-norm-improves", "kernel-7", "batch-norm-biggest", "model-2-better", "no-over-fitting"):
        assert found[name].status == "not run", name
        assert "at least 6 seeds" in found[name].how, name
        assert found[name].n == 3
        assert found[name].low < found[name].ours < found[name].high


def test_one_seed_shows_its_number_and_decides_nothing(tmp_path):
    found = found_in(standard_run(tmp_path, seeds=1))
    assert all(it.status == "not run" for it in found.values() if it.n == 1)
    number = found["task3-model-1-test-accuracy"]
    assert (number.status, number.n, number.low) == ("not run", 1, None)
    assert number.how == "it takes 3 seeds; 1 finished so far"
    assert number.ours == pytest.approx(0.78, abs=0.05)


def test_planned_cells_without_a_result_decide_nothing(tmp_path):
    plan = synthetic_plan(profile="standard", designs=DESIGNS, seeds=10)
    missing = [(variant.name, seed) for variant in plan.variants for seed in range(10)]
    found = found_in(synthetic_store(tmp_path, plan, Numbers(missing=missing)))
    assert {it.status for name, it in found.items() if name not in {*CORRECTED, *CONFIRMED, "last-layer-size"}} == {
        "not run"
    }


@pytest.mark.slow
def test_a_study_run_without_the_variant_names_the_one_command_that_adds_all(tmp_path):
    cells = standard_run(tmp_path, designs=("add-one",))
    found = found_in(cells)
    makes = "`harness ablate --study task3 --design add-one,combinations,path:report` makes what this takes."
    for name in ("task3-model-1-test-accuracy", "model-2-better", "batch-norm-gain", "batch-norm-biggest-step"):
        assert (found[name].status, found[name].how) == ("not run", makes), name
    assert found["batch-norm-improves"].status == "confirmed"
    edited(cells, "data", {"kind": "image-folder", "path": "somewhere", "image_size": 32})
    assert "path:report --data image-folder:somewhere` makes" in found_in(cells)["batch-norm-gain"].how


def test_exploratory_runs_and_other_protocols_do_not_speak_about_the_report(tmp_path):
    claim = ChangeEffect("task3", "batch-norm", "improves")
    cells = synthetic_store(tmp_path, synthetic_plan(profile="quick", seeds=10, only=("batch-norm",)))
    with pytest.raises(NotRunError, match=r"Not by the report's protocol: task3-quick-"):
        claim(ReportEvidence(cells))
    cells = standard_run(tmp_path, designs=("add-one",), only=("batch-norm",))
    assert claim(ReportEvidence(cells)).status == "confirmed"
    edited(cells, "training", {"max_epochs": 1})
    with pytest.raises(NotRunError, match="Not by the report's protocol"):
        claim(ReportEvidence(cells))


def edited(cells, branch, settings):
    """Other settings of the baseline in the manifest of the standard run."""
    (path,) = (cells.root / "studies").glob("task3-standard-*.json")
    manifest = json.loads(path.read_text())
    manifest["baseline"][branch] |= settings
    path.write_text(json.dumps(manifest))


def test_the_baseline_of_task3_stands_in_for_task2(tmp_path):
    found = found_in(standard_run(tmp_path, designs=("add-one",), only=("kernel-3",)))
    assert found["task2-baseline-test-accuracy"].status == "confirmed"
    assert found["task2-baseline-test-accuracy"].n == 10


def test_other_images_are_named_beside_the_numbers(tmp_path):
    cells = standard_run(tmp_path, designs=("add-one",), only=("batch-norm",))
    edited(cells, "data", {"kind": "image-folder", "path": "somewhere", "image_size": 32})
    found = ChangeEffect("task3", "batch-norm", "improves")(ReportEvidence(cells))
    assert found.status == "confirmed"
    assert found.how.endswith("Measured on image-folder images, not on the report's CIFAR-10.")


def other_manifest(cells, name, **changed):
    """A later manifest beside the standard run."""
    (path,) = (cells.root / "studies").glob("task3-standard-*.json")
    manifest = json.loads(path.read_text()) | changed
    later = path.with_name(f"{name}.json")
    later.write_text(json.dumps(manifest | {"id": name}))
    os.utime(later, ns=(path.stat().st_mtime_ns + 10**9,) * 2)
    return manifest


def test_the_latest_run_speaks_but_one_on_the_reports_images_before_all_others(tmp_path):
    cells = standard_run(tmp_path, designs=("add-one",), only=("batch-norm",))
    folder = {"kind": "image-folder", "path": "somewhere", "image_size": 32}
    known = other_manifest(cells, "later")
    assert ReportEvidence(cells).run_of("task3").manifest.id == "later"
    other_manifest(cells, "later", baseline=known["baseline"] | {"data": folder})
    assert ReportEvidence(cells).run_of("task3").manifest.id == known["id"]


def test_a_confirmation_is_not_taken_for_a_run_of_the_study(tmp_path):
    cells = standard_run(tmp_path, designs=("add-one",), only=("batch-norm",))
    known = other_manifest(cells, "later", confirms="task3-standard", variants=[], comparisons=[])
    assert ReportEvidence(cells).run_of("task3").manifest.id == known["id"]


def test_a_machine_with_another_precision_follows_the_protocol_all_the_same(tmp_path):
    cells = standard_run(tmp_path, designs=("add-one",), only=("batch-norm",))
    edited(cells, "training", {"precision": "bfloat16", "threads": 2})
    assert ChangeEffect("task3", "batch-norm", "improves")(ReportEvidence(cells)).status == "confirmed"


def rewritten(cells, change):
    """Edits every journalled validation: change(variant, event, is_last)."""
    (manifest,) = cells.manifests().values()
    for variant in manifest.variants:
        for key in variant.cells.values():
            path = cells.folder(key) / "journal.jsonl"
            events = [json.loads(line) for line in path.read_text().splitlines()]
            validations = [event for event in events if event["event"] == "validation"]
            for event in validations:
                change(variant.name, event, event is validations[-1])
            path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return cells


def test_faster_is_judged_after_the_first_epoch_whatever_comes_later(tmp_path):
    def change(variant, event, is_last):
        first = event["epoch"] == 1
        noise = (event["seconds"] * 1e6) % 7 / 1000  # of its own for every cell
        event["metrics"]["val/loss"] = (0.9 if (variant == "optimizer-adamax") == first else 1.4) + noise

    cells = rewritten(standard_run(tmp_path, designs=("add-one",), only=("optimizer-adamax", "batch-norm")), change)
    assert Faster("task3", "optimizer-adamax")(ReportEvidence(cells)).status == "confirmed"
    assert Faster("task3", "optimizer-adamax")(ReportEvidence(cells)).ours == pytest.approx(-0.5, abs=0.01)
    assert Faster("task3", "batch-norm")(ReportEvidence(cells)).status == "not reproduced"


def test_over_fitting_is_a_validation_loss_that_rises_while_the_training_loss_falls(tmp_path, measured):
    rising = measured["no-over-fitting"]
    assert rising.status == "not reproduced"
    assert rising.ours == pytest.approx(0.08 * 1.5**2, rel=0.5)  # synthetic's curve: 0.08 x^2, 1.5 epochs past the best
    assert "the training loss changing by -0." in rising.how
    assert "training accuracy is 0." in rising.how

    def flat(variant, event, is_last):
        event["metrics"]["val/loss"] = 1.0 / event["step"]

    cells = rewritten(standard_run(tmp_path, designs=("combinations",), only=("model-2",)), flat)
    assert NoOverfitting("task3", "model-2")(ReportEvidence(cells)).status == "confirmed"


def run(*arguments):
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_prints_both_sides_and_the_count_of_each_verdict(tmp_path):
    output = run("--store", str(tmp_path))
    assert "148,810" in output
    assert "390,410" in output
    assert output.splitlines()[-1] == "56 claims: 13 confirmed, 8 corrected, 0 not reproduced, 35 not run."


@pytest.mark.slow
def test_the_command_shows_intervals_of_what_was_measured(tmp_path):
    standard_run(tmp_path)
    found = {it["name"]: it for it in fitting("claims", run("--store", str(tmp_path), "--json"))["claims"]}
    assert len(found) == 56
    number = found["task3-model-2-test-accuracy"]
    assert number["printed"] == 0.8097
    assert number["low"] < number["ours"] < number["high"]
    assert found["parameters-total"]["printed"] == 148_810
    assert found["parameters-total"]["ours"] == 390_410
    assert {it["status"] for it in found.values()} == set(STATUSES)
    shown = run("--store", str(tmp_path))
    assert f"[{number['low']:.4f}," in shown.replace("\n", "")
    assert "not reproduced" in shown


def test_on_a_fresh_clone_the_audit_takes_under_five_seconds_and_no_torch(tmp_path):
    code = (
        "import sys; from harness.cli.claims import claims\n"
        f"claims(['--json', '--store', {str(tmp_path / 'mlruns')!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'pandas', 'scipy', 'mlflow'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert len(fitting("claims", done.stdout)["claims"]) == 56
    # Processor time: other work on the machine does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    assert not (tmp_path / "mlruns").exists()
