"""The benchmarks run from end to end, in sizes that measure nothing; their arithmetic is right."""

import json
import multiprocessing
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from image_files import encoded, write_files
from planted import trained

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the installed package

from benchmarks import cuda_figure  # noqa: E402
from benchmarks.__main__ import CUDA_EPOCHS, CUDA_IMAGES, CUDA_SECONDS, main  # noqa: E402
from benchmarks.accuracy_figure import Kept  # noqa: E402
from benchmarks.figures import FIGURES  # noqa: E402
from benchmarks.processes import together  # noqa: E402
from benchmarks.report import results_path, slug, unused  # noqa: E402
from benchmarks.sample import Aim, Contender, Line, Sample, fastest, ratio, side_by_side  # noqa: E402
from benchmarks.training_figures import throughput  # noqa: E402
from benchmarks.workload import Workload, write_images  # noqa: E402


def samples(**values):
    return {name: [Sample(value) for value in row] for name, row in values.items()}


PRELOADED = [it for it in ("torch", "torchvision", "mlflow", "optuna", "lightning") if find_spec(it)]


@pytest.fixture
def bench(tmp_path, capsys, monkeypatch):
    """`python -m benchmarks`, whose processes are forked from one that has imported what most of them need."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    monkeypatch.setattr("benchmarks.processes.START_METHOD", "forkserver")

    def measure(*arguments):
        main(["--rounds", "1", "--output", str(tmp_path / "out"), "--scratch", str(tmp_path / "scratch"), *arguments])
        (path,) = (tmp_path / "out").glob("*.json")
        return json.loads(path.read_text()), capsys.readouterr().out

    return measure


def test_contenders_take_turns():
    order = []
    contenders = [Contender(name, "", lambda name=name: order.append(name) or Sample(1.0)) for name in "ab"]
    side_by_side(contenders, 2)
    assert order == ["a", "b", "a", "b"]


def test_a_ratio_is_formed_within_each_round():
    line = ratio(samples(a=[2.0, 30.0, 4.0], b=[1.0, 10.0, 4.0]), "a", "b")
    assert line.values == (2.0, 3.0, 1.0)  # the ratio of medians would be 1.0
    assert line.middle == 2.0


def test_a_peer_enters_with_its_best_median():
    assert fastest(samples(a=[9.0, 1.0, 1.0], b=[2.0, 2.0, 2.0]), ["a", "b"]) == "b"


def test_an_aim_is_a_bound_on_the_median():
    assert Line("x", "", (0.9, 1.1, 1.2), Aim("at_least", 1.05)).to_json()["is_met"] is True
    assert Line("x", "", (0.9, 1.0, 1.2), Aim("at_least", 1.05)).to_json()["is_met"] is False
    assert Line("x", "", (3.1,), Aim("at_most", 3.0)).to_json()["is_met"] is False


def test_all_of_a_cuda_device_fits_into_nine_minutes(tmp_path, monkeypatch):
    """By what processes, compiling and cells took on an H200 (results/2026-11-26-nvidia-h200.json and README.md)."""
    monkeypatch.setattr(cuda_figure.shutil, "which", lambda program: program)  # with MPS
    monkeypatch.setattr(cuda_figure, "find_spec", lambda name: name)  # with Lightning
    workload = Workload(tmp_path, CUDA_IMAGES, CUDA_EPOCHS, "cuda")
    contenders = [*cuda_figure.step_contenders(workload), *cuda_figure.cuda_contenders(workload)]
    assert {"study, 4 workers", "study, 4 workers, MPS", "lightning, 8 processes"} <= {it.name for it in contenders}
    drawing_images = 15
    assert sum(it.seconds for it in contenders) + drawing_images <= CUDA_SECONDS < 540


def test_what_there_is_no_time_for_or_does_not_work_here_is_left_out_and_named():
    def fails():
        raise RuntimeError("Traceback\nInvalidCxxCompiler: no compiler")

    def contender(name, measure=lambda: Sample(1.0), seconds=1.0):
        return cuda_figure.Timed(name, "", measure, seconds)

    request = SimpleNamespace(rounds=2, ends_at=time.monotonic() + 50)
    contenders = [contender("a"), contender("b", seconds=100.0), contender("c", fails), contender("d")]
    samples, measured, said = cuda_figure._measured(contenders, request, lambda name, sample: None)
    assert {name: len(it) for name, it in samples.items()} == {"a": 2, "d": 2}
    assert [it.name for it in measured] == ["a", "d"]
    assert said == "; left out: b (no time), c (InvalidCxxCompiler: no compiler)"
    request.ends_at = time.monotonic() + 1.5  # for the first round, whatever the second would be
    assert len(cuda_figure._measured([contender("a"), contender("d")], request, lambda *_: None)[0]["a"]) == 1


def test_no_result_file_is_overwritten(tmp_path):
    (tmp_path / "today.json").touch()
    (tmp_path / "today-2.json").touch()
    assert unused(tmp_path, "today").name == "today-3.json"
    assert results_path(tmp_path, "AMD EPYC 9R14").name.endswith("-amd-epyc-9r14.json")
    assert slug("(?)") == "unknown"


def late(ready, first):
    """Prepares for different lengths of time; works for 50 ms."""
    if os.getpid() % 2:
        time.sleep(0.3)
    ready()
    time.sleep(0.05)
    return {"images": 7}


def fail(ready):
    raise ZeroDivisionError("planted")


def test_preparation_is_not_timed_and_images_of_all_processes_count():
    done = together(late, (0,), processes=2, threads=None)
    assert 0.05 <= done.seconds < 0.3
    assert done.total("images") == 14
    assert done.largest("peak_rss_bytes") > 1e6


def test_a_process_that_fails_ends_the_measurement_with_its_traceback():
    with pytest.raises(RuntimeError, match="planted"):
        together(fail, (), processes=2, threads=None)


def test_the_command_measures_commands_that_train_nothing(tmp_path, bench):
    record, printed = bench("--only", "planning", "--largest", "120")
    assert {"device", "cores", "cpu_flags", "versions", "commit"} <= record["machine"].keys()
    lines = {line["name"]: line for line in record["figures"]["planning"]["lines"]}
    assert lines["plan 120"]["unit"] == "s"
    assert lines["plan 120"]["min"] > 0
    assert "time a cell, 120 cells / 100 cells" in printed
    assert not list((tmp_path / "scratch").iterdir()), "the scratch folder is left as it was"


@pytest.mark.ordeal
def test_a_training_that_does_nothing_is_counted_by_its_cells_and_measured_beside_peers(tmp_path, bench):
    record, printed = bench("--only", "core", "--largest", "7")
    figure = record["figures"]["core"]
    assert "6 cells, 2 processes" in figure["title"]
    contenders = {name: each["rounds"][0] for name, each in figure["contenders"].items()}
    assert contenders["harness, trained"]["cells"] == 6
    assert contenders["optuna"]["trials"] == contenders["optuna, an MLflow run a trial"]["trials"] == 6
    assert contenders["harness, a command"]["cells"] == 6
    assert ("ray tune" in contenders) == (find_spec("ray") is not None)
    rates = {line["name"]: line["median"] for line in figure["lines"]}
    assert rates["harness, trained"] > rates["harness, delivered"] > 0
    tracked = "optuna, an MLflow run a trial"
    assert rates[f"harness, delivered / {tracked}"] == rates["harness, delivered"] / rates[tracked]
    assert rates["harness, trained / optuna"] == rates["harness, trained"] / rates["optuna"]
    assert "harness, until the first cell starts" in printed
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.ordeal
def test_a_driver_of_simulated_slots_is_measured_at_two_sizes_and_with_mlflow(bench):
    record, _ = bench("--only", "scale", "--largest", "40")
    lines = {line["name"]: line["median"] for line in record["figures"]["scale"]["lines"]}
    assert lines["40 cells: trained"] > 0
    assert lines["20 cells, MLflow following: delivered"] > 0
    assert "CPU a cell, 40 cells / 20 cells" in lines


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    workload = Workload(tmp_path_factory.mktemp("scratch"), 300, 1, "cpu")
    write_images(workload)
    return workload


def test_a_cell_is_counted_by_its_training_images(workload):
    sample = throughput("benchmarks.cells:train_one_cell", (workload, "baseline"), 1, None)
    assert sample.facts["images"] == 256  # 270 of 300 train; four whole batches of 64
    assert 0 < sample.facts["file_seconds"] < sample.facts["seconds"]
    assert not list(workload.scratch.glob("store-*"))


@pytest.mark.parametrize("variant", ["baseline", "model-1"])
def test_peers_train_the_network_of_the_harness(workload, variant):
    from benchmarks.peer import build_network, build_optimizer
    from harness.trainers.images.models import build_model

    settings = workload.settings(variant)
    peer, ours = build_network(settings), build_model(settings.model, 10, image_size=(32, 32), seed=0)
    assert [weight.numel() for weight in peer.parameters()] == [weight.numel() for weight in ours.parameters()]
    group = build_optimizer(settings, peer.parameters()).param_groups[0]
    assert group["lr"] == settings.optimizer.learning_rate
    assert group["weight_decay"] == settings.optimizer.weight_decay


def test_the_textbook_loop_trains_the_same_images(workload):
    import torch

    from benchmarks.peer import build_network, split_rows
    from benchmarks.textbook import Start, train_by_protocol

    settings = workload.settings("baseline")
    start = Start(build_network(settings), *split_rows(settings, 300))
    facts = train_by_protocol(settings, workload.images(), torch.device("cpu"), start)
    assert facts["images"] == 256
    assert 0 <= facts["test_accuracy"] <= 1
    assert len(facts["val_losses"]) == 2


@pytest.mark.ordeal
def test_textbook_and_harness_train_the_same_from_the_same_start(workload, tmp_path):
    """In float32, same split, first weights and order: what is left is the loop, and rounding."""
    import torch

    from benchmarks.accuracy import start_of
    from benchmarks.textbook import train_by_protocol
    from harness.plan.cell import make_cells
    from harness.trainers.images.settings import with_overrides
    from harness.trainers.images.train import build_parts
    from harness.trainers.images.trainer import ImageTrainer

    more = {"training.precision": "float32", "training.max_epochs": 3}
    settings, cpu = with_overrides(workload.settings("baseline"), more), torch.device("cpu")
    (cell,) = make_cells(ImageTrainer(workload.cache), settings, [0], workload.fingerprints)
    arrays, events = workload.images(), []
    facts = train_by_protocol(settings, arrays, cpu, start_of(build_parts(settings, arrays, seed=0, device=cpu)))
    run = trained(cell, tmp_path, arrays, events=events)
    ours = [event["metrics"]["val/loss"] for event in events if event["event"] == "validation"]
    assert facts["val_losses"] == pytest.approx(ours, rel=1e-4)
    assert facts["test_accuracy"] == run.final["test/accuracy"]
    elsewhere = train_by_protocol(settings, arrays, cpu, start_of(build_parts(settings, arrays, seed=1, device=cpu)))
    assert elsewhere["val_losses"] != pytest.approx(ours, rel=1e-3)


def test_an_answer_is_kept_for_what_it_depends_on(tmp_path):
    question, other = {"contender": "a", "seed": 0}, {"contender": "a", "seed": 1}
    Kept(tmp_path / "new", {"commit": "1"}).keep(question, Sample(0.7, {"seconds": 3.0}))
    kept = Kept(tmp_path / "new", {"commit": "1"})
    assert kept.sample(question) == Sample(0.7, {"seconds": 3.0})
    assert kept.sample(other) is None
    assert Kept(tmp_path / "new", {"commit": "2"}).sample(question) is None


@pytest.mark.ordeal
def test_accuracies_of_both_over_the_same_seeds(tmp_path, bench):
    files = {
        f"{split}/class{index % 10}/{index}.png": encoded((25 * (index % 10), 0, index), 32)
        for split, count in (("train", 150), ("test", 10))
        for index in range(count)
    }
    real = write_files(tmp_path / "real", files)
    record, _ = bench("--only", "accuracy", "--real", str(real), "--epochs", "1", "--rounds", "1")
    figure = record["figures"]["accuracy"]
    lines = {line["name"]: line for line in figure["lines"]}
    assert [each["seed"] for each in figure["contenders"]["textbook, float32"]["rounds"]] == [0]
    theirs, ours = (lines[name]["rounds"] for name in figure["contenders"])
    assert all(0 <= accuracy <= 1 for accuracy in theirs + ours)
    (mean,) = (line["median"] for name, line in lines.items() if name.startswith("mean of"))
    assert mean == pytest.approx(100 * (sum(ours) - sum(theirs)))
    first = lines["loss at the first validation, relative difference"]["rounds"]
    assert all(abs(percent) < 1 for percent in first), "the same split, first weights and order"


@pytest.mark.ordeal
def test_every_training_contender_runs(bench):
    small = ("--images", "300", "--epochs", "1", "--cells", "1", "--workers", "1")
    record, printed = bench("--only", "baseline,overhead,estimate", *small)
    contenders = record["figures"]["baseline"]["contenders"]
    assert {"floor 1 x 1", "floor with switches", "cell", "study", "textbook"} <= contenders.keys()
    assert any(name.startswith("lightning") for name in contenders) == (find_spec("lightning") is not None)
    images = {name: each["rounds"][0]["images"] for name, each in contenders.items()}
    assert all(count == (768 if name.startswith("floor") else 256) for name, count in images.items())
    assert "peak memory of a study's worker" in printed
    assert record["figures"]["estimate"]["lines"][0]["name"] == "estimate, off by"


def test_the_manual_names_every_figure():
    manual = (ROOT / "benchmarks" / "README.md").read_text()
    assert all(f"`{name}`" in manual for name in FIGURES)


@pytest.mark.ordeal
def test_claims_of_useless_studies_are_counted(tmp_path, bench):
    record, printed = bench("--only", "evidence,designs", "--largest", "2")
    lines = {line["name"]: line["median"] for line in record["figures"]["evidence"]["lines"]}
    assert all(0 <= value <= 1 for name, value in lines.items() if not name.endswith("cells a study"))
    assert 80 <= lines["race, m = 9, two of dz = 1: cells a study"] <= 240
    assert "confirm each of fifteen: after" in printed
