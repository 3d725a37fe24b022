import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from image_cases import SETTINGS
from planted import Arrays, batches_between, image_cell, planted_images, tiny_cell, trained
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

from harness.errors import StudyError
from harness.execution.here import run_one
from harness.plan.cell import Cell, make_cells
from harness.store.cells import Cells
from harness.store.result import Result
from harness.study.changes import combine
from harness.study.load import load_study, studies
from harness.trainers.images import train
from harness.trainers.images.arithmetic import Replica, environment
from harness.trainers.images.machine import winograd_pays
from harness.trainers.images.models import build_model
from harness.trainers.images.readback import UNREADABLE, _precision, check_readback, readback
from harness.trainers.images.settings import ConvNet, ResNet18, Settings, with_overrides
from harness.trainers.images.train import Parts, build_parts
from harness.trainers.images.trainer import METRICS, ImageTrainer
from harness.trainers.run import CHECKPOINT, Event, Run
from harness.trees import flatten

CPU = torch.device("cpu")
ARRAYS = planted_images()
EVERYTHING = {  # every source of state at once: dropout, augmentation, moments, running statistics
    "model.dropout": 0.3,
    "model.batch_norm": True,
    "model.batch_norm_fc": True,
    "augmentation.crop_padding": 1,
    "augmentation.horizontal_flip": 0.5,
    "optimizer.name": "adamax",
    "optimizer.learning_rate": 0.01,
}
LEARNS = {"optimizer.name": "adam", "optimizer.learning_rate": 0.02, "training.max_epochs": 10}
UNREPEATABLE = ("seconds", "peak_memory_bytes")


def parts_of(cell: Cell, arrays: Arrays = ARRAYS, device: torch.device = CPU) -> Parts:
    return build_parts(cell.settings, arrays, seed=cell.seed, device=device)


def numbers(run: Run) -> dict[str, Any]:
    facts = {name: fact for name, fact in run.facts.items() if name not in UNREPEATABLE}
    return {"num_steps": run.num_steps, "metrics": run.final, "facts": facts}


def validations(events: list[Event]) -> list[Event]:
    return [event for event in events if event["event"] == "validation"]


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / train.BEST_WEIGHTS_FILE)


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = best_weights(one), best_weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_cell_learns_what_was_planted(tmp_path):
    events: list[Event] = []
    run = trained(tiny_cell(LEARNS), tmp_path / "a", events=events)
    assert run.final.keys() == set(METRICS.names)
    assert run.final["test/accuracy"] > 0.9
    assert [event["event"] for event in events] == ["validation", "saved"] * (len(events) // 2)
    assert run.facts["parameters"] == sum(weight.numel() for weight in best_weights(tmp_path / "a").values())


def test_a_cell_without_signal_stays_at_chance(tmp_path):
    run = trained(tiny_cell(), tmp_path / "a", planted_images(signal=0, test=500))
    assert abs(run.final["test/accuracy"] - 1 / 3) < 0.1  # five standard errors of 0.021


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_cell_twice_gives_the_same_bits(tmp_path, precision):
    cell = tiny_cell(EVERYTHING | {"training.precision": precision})
    first, second = trained(cell, tmp_path / "a"), trained(cell, tmp_path / "b")
    assert numbers(first) == numbers(second)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert trained(tiny_cell(EVERYTHING, seed=1), tmp_path / "c").final["test/loss"] != first.final["test/loss"]


def test_the_result_is_that_of_the_validation_with_the_lowest_loss(tmp_path):
    """Noise alone is learned by heart, so that the validation loss soon rises and the best is not the last."""
    overrides = {"training.max_epochs": 30, "optimizer.name": "adam", "optimizer.learning_rate": 0.03}
    events: list[Event] = []
    cell = tiny_cell(overrides)
    run = trained(cell, tmp_path / "a", planted_images(signal=5), events=events)
    best = min(validations(events), key=lambda event: event["metrics"]["val/loss"])
    assert (run.facts["best_step"], run.facts["best_epoch"]) == (best["step"], best["epoch"])
    assert best["step"] < run.num_steps
    assert [run.final[name] for name in ("val/loss", "val/accuracy")] == [
        best["metrics"][name] for name in ("val/loss", "val/accuracy")
    ]
    assert run.num_steps < 300  # stopped early: of the last four losses the oldest is the smallest
    recent = [event["metrics"]["val/loss"] for event in validations(events)[-4:]]
    assert recent[0] == min(recent)
    with safe_open(tmp_path / "a" / train.BEST_WEIGHTS_FILE, "pt") as file:
        assert file.metadata() == {"cell": cell.key, "step": str(best["step"])}


def test_losses_and_accuracies_are_those_of_the_best_weights_over_all_images(tmp_path):
    """Recomputed from the saved weights with plain PyTorch, all images of a split at once."""
    cell = tiny_cell({"model.batch_norm": True})
    run = trained(cell, tmp_path / "a")
    model = build_model(cell.settings.model, 3, image_size=(8, 8), seed=9).eval()
    model.load_state_dict(best_weights(tmp_path / "a"))
    inputs = (torch.from_numpy(ARRAYS.test_images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.inference_mode():
        logits = model(inputs)
    labels = torch.from_numpy(ARRAYS.test_labels)
    assert run.final["test/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert run.final["test/accuracy"] == (logits.argmax(1) == labels).double().mean().item()
    assert run.final["test/accuracy"] * 50 == round(run.final["test/accuracy"] * 50)


def test_training_numbers_are_means_over_the_batches_since_the_last_validation(tmp_path):
    """With a rate that alters nothing, in one epoch of ten batches, they are those of the untrained network."""
    cell = tiny_cell({"optimizer.learning_rate": 1e-30, "training.max_epochs": 1})
    events: list[Event] = []
    trained(cell, tmp_path / "a", events=events)
    parts = parts_of(cell)
    halves = [list(batches_between(parts.batches, 0, 5)), list(batches_between(parts.batches, 5, 10))]
    for event, batches in zip(validations(events), halves, strict=True):
        logits = torch.cat([parts.replica(inputs) for inputs, _ in batches])
        labels = torch.cat([labels for _, labels in batches])
        assert event["metrics"]["train/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
        assert event["metrics"]["train/accuracy"] == (logits.argmax(1) == labels).double().mean().item()


def test_a_plain_pytorch_loop_gives_the_same_weights(tmp_path):
    """The same order of batches through a loop that anybody would write, in float32; SGD with momentum and L2."""
    overrides = {"optimizer.momentum": 0.9, "optimizer.weight_decay": 0.01, "training.max_epochs": 1}
    cell = tiny_cell(overrides | {"training.validations_per_epoch": 1})
    trained(cell, tmp_path / "a")
    parts = parts_of(cell)
    model = build_model(cell.settings.model, 3, image_size=(8, 8), seed=0)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    for rows in parts.batches.order(0).split(15):
        inputs = (torch.from_numpy(ARRAYS.train_images[rows]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), torch.from_numpy(ARRAYS.train_labels[rows])).backward()
        optimizer.step()
    for name, weight in best_weights(tmp_path / "a").items():
        torch.testing.assert_close(weight, model.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_dropout_leaves_the_batches_and_the_first_weights_alone():
    plain, dropped = (parts_of(tiny_cell(it)) for it in ({}, {"model.dropout": 0.5}))
    for (_, first), (_, second) in zip(
        batches_between(plain.batches, 0, 20), batches_between(dropped.batches, 0, 20), strict=True
    ):
        assert torch.equal(first, second)
    weights = dropped.replica.master.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in plain.replica.master.state_dict().items())


class Killed(BaseException):
    """As abrupt as a test can be: no handler in the harness catches it."""


def interrupted_run(cell: Cell, folder: Path, kill_at: int) -> list[Event]:
    """Train until event number `kill_at` has been reported, then die; the events that were reported."""
    events: list[Event] = []

    def report(event: Event) -> None:
        if len(events) == kill_at:
            raise Killed

    with pytest.raises(Killed):
        trained(cell, folder, events=events, on_event=report)
    return events


def without_seconds(events: list[Event]) -> list[Event]:
    by_step = {event["step"]: event for event in validations(events)}  # the last of a step counts
    return [{name: value for name, value in by_step[step].items() if name != "seconds"} for step in sorted(by_step)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [EVERYTHING, EVERYTHING | {"training.precision": "bfloat16"}, SETTINGS["everything"], SETTINGS["one-cycle"]],
    ids=["float32", "bfloat16", "settings", "one-cycle"],
)
def test_a_death_at_any_event_changes_no_bit(tmp_path, overrides):
    cell = tiny_cell(overrides)
    whole_events: list[Event] = []
    whole = trained(cell, tmp_path / "whole", events=whole_events)
    assert len(whole_events) == 12  # six validations, each with a checkpoint, which is not kept yet when it is told
    for kill_at in range(1, 13):
        folder = tmp_path / f"killed-{kill_at}"
        events = interrupted_run(cell, folder, kill_at)
        run = trained(cell, folder, events=events)
        assert numbers(run) == numbers(whole), kill_at
        assert_same_weights(folder, tmp_path / "whole")
        assert without_seconds(events) == without_seconds(whole_events)
        assert run.seconds >= validations(events)[-1]["seconds"]


def test_a_death_at_every_event_in_turn_changes_no_bit(tmp_path):
    cell = tiny_cell(EVERYTHING)
    whole = trained(cell, tmp_path / "whole")
    for _ in range(5):  # each life saves one validation and dies after the next, which it leaves to be repeated
        interrupted_run(cell, tmp_path / "killed", 3)
    assert numbers(trained(cell, tmp_path / "killed")) == numbers(whole)


def test_a_death_between_validations_continues_from_the_steps_that_were_saved(tmp_path, monkeypatch):
    cell = tiny_cell(EVERYTHING)
    whole_events: list[Event] = []
    whole = trained(cell, tmp_path / "whole", events=whole_events)
    monkeypatch.setattr(train, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)  # a checkpoint after each step
    saves = itertools.count(1)
    save_checkpoint = train.save_checkpoint

    def save_until_death(*args: Any) -> None:
        save_checkpoint(*args)
        if next(saves) == 9:  # steps 1 to 5, the validation at 5, steps 6 and 7; this one of step 8 is not kept
            raise Killed

    monkeypatch.setattr(train, "save_checkpoint", save_until_death)
    events: list[Event] = []
    with pytest.raises(Killed):
        trained(cell, tmp_path / "killed", events=events)
    steps: list[int] = []
    train_step = train._train_step

    def count(parts: Parts, position: train.Position) -> None:
        train_step(parts, position)
        steps.append(position.step + 1)

    monkeypatch.setattr(train, "_train_step", count)
    run = trained(cell, tmp_path / "killed", events=events)
    assert steps == list(range(8, 31))
    assert numbers(run) == numbers(whole)
    assert without_seconds(events) == without_seconds(whole_events)


def test_a_cell_that_is_asked_to_stop_leaves_at_the_next_step_without_a_result_and_goes_on_later(tmp_path):
    cell = tiny_cell(EVERYTHING)
    whole = trained(cell, tmp_path / "whole")
    events: list[Event] = []
    stopped = trained(cell, tmp_path / "a", events=events, should_stop=lambda: len(validations(events)) == 2)
    assert (stopped.final, stopped.num_steps) == (None, 11)  # validations are at 5 and 10
    assert not (tmp_path / "a" / train.BEST_WEIGHTS_FILE).exists()
    assert numbers(trained(cell, tmp_path / "a", events=events)) == numbers(whole)


def test_a_finished_cell_run_again_only_measures(tmp_path):
    cell = tiny_cell()
    first = trained(cell, tmp_path / "a")
    events: list[Event] = []
    again = trained(cell, tmp_path / "a", events=events)
    assert events == []
    assert numbers(again) == numbers(first)


@pytest.mark.parametrize("is_foreign", [False, True])
def test_an_unusable_checkpoint_is_said_and_the_cell_starts_again(tmp_path, is_foreign):
    cell = tiny_cell()
    whole = trained(cell, tmp_path / "whole")
    interrupted_run(tiny_cell(seed=1) if is_foreign else cell, tmp_path / "a", 3)
    checkpoint = tmp_path / "a" / CHECKPOINT
    if not is_foreign:
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    events: list[Event] = []
    run = trained(cell, tmp_path / "a", events=events)
    assert [event["event"] for event in events[:2]] == ["restarted", "validation"]
    assert ("belongs to cell" if is_foreign else "damaged") in events[0]["reason"]
    assert numbers(run) == numbers(whole)


def shapes_cell(cache: Path, overrides: dict[str, Any] | None = None) -> Cell:
    """Of images that are drawn, not read: the trainer finds them by itself."""
    data = {"data": {"kind": "shapes", "train_images": 200, "test_images": 50}, "training.max_epochs": 1}
    settings = with_overrides(tiny_cell().settings, data | (overrides or {}))
    (cell,) = make_cells(ImageTrainer(cache), settings, [0], {"data": "shapes"})
    return cell


def run_in(store: Path, cell: Cell, events: list[Event]) -> Result:
    """As the harness trains a cell."""
    run_one(cell, Cells(store), device="cpu", provenance={}, on_event=events.append)
    result = Cells(store).result(cell.key)
    assert result is not None
    return result


def test_a_diverging_cell_is_an_outcome_with_its_epoch(tmp_path):
    cell = shapes_cell(tmp_path / "cache", {"optimizer.learning_rate": 1e30})
    result = run_in(tmp_path, cell, [])
    assert (result.status, result.reason) == ("diverged", "loss is not finite at epoch 0.5")
    assert result.metrics == {}
    assert result.num_steps == 5
    assert result.facts["parameters"] > 0
    assert result.facts["num_epochs"] == 0.5


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: not enough memory")],
)
def test_running_out_of_memory_is_an_outcome(tmp_path, monkeypatch, error):
    def no_memory(*args: Any) -> None:
        raise error

    monkeypatch.setattr(train, "_train_step", no_memory)
    result = run_in(tmp_path, shapes_cell(tmp_path / "cache"), [])
    assert result.status == "out-of-memory"
    assert result.reason in str(error)
    assert result.device.startswith("cpu: ")


def test_a_cell_trains_on_the_images_that_its_settings_name(tmp_path):
    cell = shapes_cell(tmp_path / "cache")
    events: list[Event] = []
    for name in ("first", "second"):  # the second time from the cache of decoded images
        assert run_in(tmp_path / name, cell, events).is_finished
    assert_same_weights(*(Cells(tmp_path / name).folder(cell.key) for name in ("first", "second")))
    assert [event["event"] for event in events] == ["started", "validation", "validation"] * 2


@pytest.mark.slow
def test_resnet18_fine_tunes_two_layers_and_leaves_the_others_alone(tmp_path):
    torch.manual_seed(0)
    body = build_model(ResNet18(weights="none"), 3, image_size=(32, 32), seed=7).state_dict()
    torch.save(body, tmp_path / "body.pt")
    overrides = {
        "model": {"kind": "resnet18", "weights": f"file:{tmp_path / 'body.pt'}", "frozen_batch_norm": True},
        "preprocessing.resize": 32,
        "optimizer.name": "adam",
        "optimizer.learning_rate": 5e-4,
        "training.max_epochs": 1,
        "training.precision": "bfloat16",
    }
    settings = with_overrides(tiny_cell().settings, overrides)
    trained(image_cell(settings, weights="random"), tmp_path / "a", planted_images(train=60, test=10))
    after = best_weights(tmp_path / "a")
    altered = {name.partition(".")[0] for name, value in body.items() if not torch.equal(value, after[name])}
    assert altered == {"layer4", "fc"}


def test_any_other_error_is_the_callers(tmp_path, monkeypatch):
    def broken(*args: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(train, "_train_step", broken)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        trained(tiny_cell(), tmp_path / "a")


@pytest.mark.slow
def test_a_cell_leaves_the_process_as_it_was(tmp_path):
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    trained(tiny_cell(EVERYTHING | {"training.threads": 2, "training.max_epochs": 1}), tmp_path / "a")
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads
    assert torch.tensor([1e-40]).mul(1.0).item() > 0  # denormals count again


def test_a_result_says_how_it_was_computed(tmp_path):
    run = trained(tiny_cell({"training.threads": 2, "training.max_epochs": 1}), tmp_path / "a")
    assert [run.facts[it] for it in ("threads", "precision", "data_fingerprint")] == [2, "float32", "planted"]
    convolutions = ", harness's convolutions" if winograd_pays() else ""
    assert run.facts["versions"] == f"torch {torch.__version__}{convolutions}"
    assert run.facts["device"].startswith("cpu: ")
    assert run.facts["peak_memory_bytes"] > 2**26


# --- precision -------------------------------------------------------------------------------------------------------


def gradients(replica: Replica, inputs: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    replica.backward(F.cross_entropy(replica(inputs), labels))
    return [weight.grad for weight in replica.master.parameters() if weight.requires_grad]


@pytest.mark.parametrize(
    "model",
    [ConvNet(), ConvNet(pooling="avg", dropout=0.2), ConvNet(batch_norm=True), ResNet18(weights="none")],
    ids=["baseline", "dropout", "batch-norm", "resnet18"],
)
def test_the_bfloat16_twin_computes_what_autocast_computes(model):
    inputs = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    inputs = inputs.to(memory_format=torch.channels_last)
    labels = torch.arange(16) % 10
    found = []
    for is_known in (True, False):
        master = build_model(model, 10, image_size=(32, 32), seed=0).to(memory_format=torch.channels_last)
        replica = Replica(master, "bfloat16", is_known=is_known)
        torch.manual_seed(1)  # dropout
        found.append(gradients(replica, inputs.to(replica.input_dtype), labels))
    for twin, autocast in zip(*found, strict=True):
        assert twin.dtype == torch.float32
        assert torch.equal(twin, autocast)
    assert len(found[0]) >= 5


def test_bfloat16_gradients_are_close_to_those_of_float32():
    inputs = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 10
    found = []
    for precision in ("float32", "bfloat16"):
        replica = Replica(build_model(ConvNet(), 10, image_size=(32, 32), seed=0), precision, is_known=True)
        found.append(torch.cat([it.flatten() for it in gradients(replica, inputs.to(replica.input_dtype), labels)]))
    # bfloat16 has 8 significant bits, an error of 0.4% an operation: small gradients differ, their direction does not.
    assert F.cosine_similarity(*found, dim=0) > 0.99
    assert not torch.equal(*found)


def test_batch_norm_keeps_its_statistics_in_float32_and_shares_them_with_the_master():
    master = build_model(ConvNet(batch_norm=True), 10, image_size=(32, 32), seed=0)
    replica = Replica(master, "bfloat16", is_known=True)
    replica.network.train()
    replica(torch.randn(8, 3, 32, 32).bfloat16())
    norm = master.blocks[0].norm
    assert norm is replica.network.blocks[0].norm
    assert norm.running_mean.dtype == torch.float32
    assert norm.running_mean.abs().sum() > 0


def test_small_updates_add_up_in_the_float32_master():
    """1000 steps of 1e-5 on a weight of 1 move it by 0.01; in bfloat16 alone each would be rounded away."""
    master = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    torch.nn.init.ones_(master[0].weight)
    replica = Replica(master, "bfloat16", is_known=True)
    optimizer = torch.optim.SGD(master.parameters(), 1e-5)
    for _ in range(1000):
        replica.backward(replica(torch.ones(1, 1, dtype=torch.bfloat16)).sum())
        optimizer.step()
        replica.refresh()
    assert master[0].weight.item() == pytest.approx(0.99, abs=1e-4)
    assert replica.network[0].weight.item() == pytest.approx(0.99, abs=0.004)


def test_frozen_weights_reach_the_twin_when_a_state_is_loaded():
    master = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    master[0].requires_grad_(False)
    replica = Replica(master, "bfloat16", is_known=True)
    replica.load({name: torch.full_like(value, 3.0) for name, value in master.state_dict().items()})
    assert all((weight == 3).all() for weight in replica.network.parameters())


def test_denormals_count_as_zero_while_a_cell_trains():
    with environment(threads=1, device=CPU, precision="float32"):
        assert torch.tensor([1e-30]).mul(1e-10).item() == 0
    assert torch.tensor([1e-30]).mul(1e-10).item() > 0


# --- readback: every setting reaches the trained object ------------------------------------------------------------

LARGE = planted_images(side=32, train=300)


def readback_of(settings: Settings) -> dict[str, Any]:
    """In float32, and without a download."""
    overrides: dict[str, Any] = {"training.precision": "float32"}
    if settings.model.kind == "resnet18":
        overrides["model.weights"] = "none"
    parts = parts_of(image_cell(with_overrides(settings, overrides)), LARGE)
    return readback(parts.replica, parts.loss, parts.update, parts.batches, parts.schedule, parts.splits)


CHANGES = [(study.name, study.baseline, change) for study in map(load_study, studies()) for change in study.changes]


@pytest.mark.parametrize(
    ("baseline", "change"),
    [(baseline, change) for _, baseline, change in CHANGES],
    ids=[f"{study}-{change.name}" for study, _, change in CHANGES],
)
def test_a_change_alters_the_trained_object_in_what_it_sets_and_nothing_else(baseline, change):
    before, after = readback_of(baseline), readback_of(combine(baseline, [change]))
    altered = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    if any(path.startswith("optimizer.options") for path in change.overrides):
        altered -= {"optimizer.options"}  # empty as a whole, or one reading an option
    # Where weights came from cannot be read from a network; that they arrive is a test of models.py.
    assert altered == {path for path in change.overrides if not path.startswith(UNREADABLE)}


def test_there_are_changes_to_test():
    assert len(CHANGES) >= 15


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_is_read_back_where_it_is_and_nowhere_else(name):
    overrides = flatten(SETTINGS[name])
    before, after = (readback_of(with_overrides(Settings(), it)) for it in ({}, SETTINGS[name]))
    altered = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    is_options = any(path.startswith("optimizer.options") for path in overrides)
    assert altered - ({"optimizer.options"} if is_options else set()) == set(overrides)


@pytest.mark.parametrize("kind", ["convnet", "resnet18"])
def test_every_setting_of_a_model_is_read_back_but_for_those_declared_unreadable(kind):
    settings = with_overrides(Settings(), {"model.kind": kind})
    readable = {path for path in flatten(settings.model_dump()) if not path.startswith(UNREADABLE)}
    assert readable == readback_of(settings).keys()
    assert len(readable) > 20


def test_a_setting_that_reached_nothing_is_noticed():
    settings = tiny_cell().settings
    parts = parts_of(tiny_cell())
    with environment(threads=1, device=CPU, precision="float32"):
        found = readback(parts.replica, parts.loss, parts.update, parts.batches, parts.schedule, parts.splits)
    check_readback(settings, found, num_images=200)
    for path, value in found.items():
        placebo = {"model.kind": "plugin"}.get(path, (0,) if isinstance(value, tuple) else "another")
        with pytest.raises(AssertionError, match=path if path != "model.kind" else "kind"):
            check_readback(settings, found | {path: placebo}, num_images=200)
    del found["optimizer.momentum"]
    with pytest.raises(AssertionError, match="cannot be read back"):
        check_readback(settings, found, num_images=200)


def test_a_model_that_lost_its_dropout_is_noticed(monkeypatch, tmp_path):
    def without_dropout(*args: Any, **kwargs: Any) -> torch.nn.Module:
        model = build_model(*args, **kwargs)
        model.dropout = torch.nn.Identity()
        return model

    monkeypatch.setattr(train, "build_model", without_dropout)
    with pytest.raises(AssertionError, match=r"model\.dropout is 0\.0 in the trained object, but 0\.5 was asked for"):
        trained(tiny_cell({"model.dropout": 0.5}), tmp_path / "a")


def test_settings_that_do_not_fit_the_images_are_errors_of_the_user(tmp_path):
    with pytest.raises(StudyError, match=r"training\.batch_size"):
        trained(tiny_cell({"training.batch_size": 500}), tmp_path / "a")


def test_tf32_is_refused_where_there_is_none(tmp_path):
    with pytest.raises(StudyError, match=r"training\.precision: tf32 is a format of CUDA devices"):
        trained(tiny_cell({"training.precision": "tf32"}), tmp_path / "a")


def test_tf32_is_switched_on_where_it_was_asked_for_and_read_back():
    replica = Replica(build_model(ConvNet(), 10, image_size=(32, 32), seed=0), "tf32", is_known=True)
    for precision in ("float32", "tf32", "float32"):
        with environment(threads=1, device=CPU, precision=precision):
            wanted = "tf32" if precision == "tf32" else "ieee"
            assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == wanted
            assert _precision(replica) == precision


def test_cuda_is_initialised_before_its_memory_statistics_are_reset(monkeypatch):
    # As PyTorch: the allocator knows no device before `init`, and `reset_peak_memory_stats` does not call it.
    initialised: list[bool] = []
    selected: list[int] = []

    def reset(device: torch.device) -> None:
        if not initialised:
            raise RuntimeError("Invalid device argument 1: did you call init?")

    stand_ins = {
        "init": lambda: initialised.append(True),
        "set_device": selected.append,
        "reset_peak_memory_stats": reset,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda *_: None,
        "empty_cache": lambda: None,
        "synchronize": lambda device: None,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    with environment(threads=1, device=torch.device("cuda:1"), precision="float32"):
        assert initialised
    assert selected == [1]
