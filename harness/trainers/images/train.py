"""The training of one cell, readable from top to bottom; `train` is the one function that others call.

The protocol: each epoch in a new order, without its last, shorter batch; a validation every `interval` steps; stop when
the validation loss has stopped falling; the numbers are those of the weights with the lowest validation loss, over
whole splits, in evaluation mode.

An interruption at any line loses nothing. A validation is logged first (durable when `run.log` returns) and
checkpointed after that; a death in between repeats it, with the same numbers, and the reader keeps the later one.
Orders and augmentation are functions of (seed, epoch); the stream of dropout is in the checkpoint.
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import DeviceLostError, DivergedError, OutOfMemoryError, StudyError
from harness.trainers.images.arithmetic import (
    Replica,
    device_name,
    environment,
    is_out_of_memory,
    is_poisoned,
    peak_memory_bytes,
    unrepeatable_because,
)
from harness.trainers.images.augment import Mixup, make_edits
from harness.trainers.images.checkpoint import (
    UnusableCheckpointError,
    load_checkpoint,
    save_checkpoint,
    write_file,
)
from harness.trainers.images.data.batches import (
    Preprocess,
    Split,
    Splits,
    TrainingBatches,
    evaluation_batches,
    make_splits,
)
from harness.trainers.images.data.sources import ImageArrays, load_images
from harness.trainers.images.graph import Steps
from harness.trainers.images.machine import precision_problem, winograd_pays
from harness.trainers.images.models import build_model
from harness.trainers.images.optimizers import is_capturable, make_optimizer
from harness.trainers.images.rates import make_rates
from harness.trainers.images.readback import check_readback, readback
from harness.trainers.images.schedule import Schedule, make_schedule
from harness.trainers.images.settings import PluginModel, Settings, TorchvisionModel
from harness.trainers.images.streams import derive_seed
from harness.trainers.images.update import Averages, Update
from harness.trainers.run import Run

BEST_WEIGHTS_FILE = "best.safetensors"
SECONDS_BETWEEN_CHECKPOINTS = 60.0  # each validation makes one; so do steps, where validations are further apart
# A validation sooner after a checkpoint than this makes none: on a fast GPU half an epoch takes as long as saving it.
LEAST_SECONDS_BETWEEN_CHECKPOINTS = {"cpu": 0.0, "cuda": 10.0}
# Of an evaluation batch, as the network sees it: on a CPU 256 images of 32x32 (more are no faster and take memory), on
# CUDA 2,048 of them or 41 of 224x224: with 512 filters still 2^30 elements, which kernels can count in 32 bits. Never
# fewer images than a training batch.
EVALUATION_PIXELS = {"cpu": 2**18, "cuda": 2**21}


def train(run: Run, *, cache: Path) -> None:
    """Train one cell, or continue it, and measure its best weights; in the calling process.

    Afterwards the run's folder holds `best.safetensors` (the weights with the lowest validation loss) and the
    checkpoint of the end of training, so that a second call repeats the measurement only. On the CPU the result is the
    same, bit for bit, however often the cell was interrupted.

    Args:
        cache: where `sources.load_images` keeps decoded images.

    Raises:
        StudyError, DataError: the settings do not fit the images, or files are missing.
        StoreError: a file cannot be read or written. DivergedError, OutOfMemoryError: outcomes.
    """
    train_on(run, load_images(run.settings.data, cache=cache, fingerprint=run.fingerprints["data"]))


def train_on(run: Run, arrays: ImageArrays) -> None:
    """`train` on images that are in memory already."""
    device = torch.device(run.device)
    training = run.settings.training
    assert training.precision != "auto"
    if run.should_stop:  # looked at before the device is used: from here on a step that is under way may end
        return
    run.note(versions=_versions(device), precision=training.precision)
    run.note(data_fingerprint=run.fingerprints["data"], device=device_name(device))
    try:
        with environment(threads=training.threads, device=device, precision=training.precision):
            _train_and_measure(run, arrays, device)
    except (RuntimeError, MemoryError) as error:  # around the switches, too: putting them back uses the device
        if is_poisoned(error):
            raise DeviceLostError(f"the CUDA context is lost: {str(error).partition(chr(10))[0]}") from error
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(str(error).partition("\n")[0] or "out of memory") from error


def _train_and_measure(run: Run, arrays: ImageArrays, device: torch.device) -> None:
    """Notes how far training came, however it ends."""
    position = Position()
    try:
        parts = build_parts(run.settings, arrays, seed=run.seed, device=device)
        _check(parts)
        run.note(parameters=sum(weight.numel() for weight in parts.replica.master.parameters()))
        if reason := unrepeatable_because(parts.replica.master, device):
            run.note(unrepeatable=reason)
        _start(parts, position, run)
        steps = _steps(parts, position)
        try:
            is_over = _train(parts, position, steps, run)
        finally:
            if device.type == "cuda":
                run.note(step_mode=steps.mode, **({"step_mode_reason": steps.reason} if steps.reason else {}))
        if is_over:
            numbers, right = _measure_best(parts, position, run)
            run.finish(**numbers, examples={"test/accuracy": right.numpy()})
    finally:
        run.at(position.step)
        run.note(num_epochs=position.num_epochs, threads=torch.get_num_threads())
        run.note(peak_memory_bytes=peak_memory_bytes(device))


def _versions(device: torch.device) -> str:
    """What computes on this machine: the same for all variants, whether their convolutions suit it or not."""
    convolutions = ", harness's convolutions" if device.type == "cpu" and winograd_pays() else ""
    return f"torch {torch.__version__}{convolutions}"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One validation: what is known after `step` optimizer steps.

    Attributes:
        epoch: the same in epochs, a fraction: the protocol validates twice an epoch.
        train_loss: mean cross entropy in nats over the training batches since the validation before, in train mode.
        train_accuracy: fraction of those training images that were right.
        val_loss, val_accuracy: over the validation images, in eval mode.
    """

    step: int
    epoch: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "train/loss": self.train_loss,
            "train/accuracy": self.train_accuracy,
            "val/loss": self.val_loss,
            "val/accuracy": self.val_accuracy,
        }


@dataclass(frozen=True)
class Parts:
    """The objects that train one cell."""

    settings: Settings
    device: torch.device
    splits: Splits
    preprocess: Preprocess
    batches: TrainingBatches
    replica: Replica
    loss: nn.CrossEntropyLoss
    update: Update
    schedule: Schedule
    evaluation_batch_size: int

    def seek(self, step: int) -> int:
        """Makes an optimizer step, counted from 0 over all epochs, the next one; gives how many its epoch has left."""
        self.update.seek(step)
        return self.batches.seek(step)


class Position:
    """How far a cell has come; everything in it is in the checkpoint.

    Attributes:
        step: optimizer steps done.
        history: the validations so far.
        best_weights: state dict, on the CPU, of the validation with the lowest loss (the first of equals).
        steps, loss_sum, num_correct: of the training batches since the last validation; the sums stay on the device.
    """

    def __init__(self) -> None:
        self.step = 0
        self.steps_per_epoch = 1
        self.history: list[Epoch] = []
        self.best_weights: dict[str, Tensor] = {}
        self.steps_since_validation = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64)
        self.num_correct = torch.zeros((), dtype=torch.int64)

    @property
    def num_epochs(self) -> float:
        return self.step / self.steps_per_epoch

    @property
    def best(self) -> Epoch:
        return min(self.history, key=lambda epoch: epoch.val_loss)


def build_parts(settings: Settings, arrays: ImageArrays, *, seed: int, device: torch.device) -> Parts:
    """Everything that the settings describe.

    Raises:
        StudyError, DataError: the settings do not fit the images, or files are missing.
    """
    training = settings.training
    if problem := precision_problem(training.precision, device.type):
        raise StudyError(problem)
    split_seed = seed if training.split_seed == "seed" else training.split_seed
    splits = make_splits(arrays, fraction=training.validation_fraction, seed=split_seed, device=device)
    height, width = splits.image_size
    side = settings.preprocessing.resize
    input_size = (height, width) if side is None else (side, side)
    model = build_model(settings.model, len(splits.classes), image_size=input_size, seed=seed)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert training.precision != "auto"
    is_known = not isinstance(settings.model, PluginModel | TorchvisionModel)
    is_winograd = device.type == "cpu" and training.threads == 1 and winograd_pays()  # its kernels know one thread
    replica = Replica(model, training.precision, is_known=is_known, is_winograd=is_winograd)
    preprocess = Preprocess(settings.preprocessing, width=width, device=device, dtype=replica.input_dtype)
    batches = TrainingBatches(
        splits.train,
        batch_size=training.batch_size,
        edits=make_edits(settings.augmentation, height=height, width=width, mean=settings.preprocessing.mean),
        preprocess=preprocess,
        seed=seed,
        mixup=Mixup(settings.augmentation.mixup) if settings.augmentation.mixup else None,
        num_classes=len(splits.classes),
    )
    return Parts(
        settings=settings,
        device=device,
        splits=splits,
        preprocess=preprocess,
        batches=batches,
        replica=replica,
        loss=nn.CrossEntropyLoss(label_smoothing=training.label_smoothing),
        update=_make_update(settings, model, steps_per_epoch=batches.steps_per_epoch, device=device),
        schedule=make_schedule(training, batches.steps_per_epoch),
        evaluation_batch_size=max(training.batch_size, EVALUATION_PIXELS[device.type] // math.prod(input_size)),
    )


def _make_update(settings: Settings, model: nn.Module, *, steps_per_epoch: int, device: torch.device) -> Update:
    training = settings.training
    rates = make_rates(settings.optimizer, steps_per_epoch=steps_per_epoch, max_epochs=training.max_epochs)
    return Update(
        make_optimizer(settings.optimizer, model.parameters(), device, is_constant=rates.is_constant),
        rates,
        gradient_clip=settings.optimizer.gradient_clip,
        averages=Averages(model, training.ema_decay, rates.num_steps) if training.ema_decay else None,
        device=device,
    )


def _check(parts: Parts) -> None:
    """Assert that the objects do what the settings say."""
    splits = parts.splits
    found = readback(parts.replica, parts.loss, parts.update, parts.batches, parts.schedule, splits)
    check_readback(parts.settings, found, num_images=len(splits.train) + len(splits.validation))


def _start(parts: Parts, position: Position, run: Run) -> None:
    """From the checkpoint, if there is one that can be used; from the beginning otherwise, saying why."""
    torch.manual_seed(derive_seed(run.seed, "dropout"))
    position.steps_per_epoch = parts.schedule.steps_per_epoch
    position.loss_sum = position.loss_sum.to(parts.device)
    position.num_correct = position.num_correct.to(parts.device)
    saved = run.saved()
    if saved is None:
        return
    try:
        state = load_checkpoint(saved, run.key)
    except UnusableCheckpointError as error:
        run.restarted(str(error))
        return
    if state is not None:
        _restore(parts, position, state)


def _steps(parts: Parts, position: Position) -> Steps:
    """How this cell's optimizer steps are made."""
    reason = ""
    if parts.device.type != "cuda":
        reason = "graphs are of CUDA devices"
    elif isinstance(parts.settings.model, PluginModel):
        reason = "a network from elsewhere may do on the host what a graph would not repeat"
    elif not is_capturable(parts.settings.optimizer.name):
        reason = f"{parts.settings.optimizer.name} keeps numbers on the host"
    return Steps(
        lambda: _train_step(parts, position),
        lambda: _tensors_of_a_step(parts, position),
        device=parts.device,
        eager_because=reason,
    )


def _train(parts: Parts, position: Position, steps: Steps, run: Run) -> bool:
    """To the end, which gives True, or until the run is asked to stop."""
    schedule = parts.schedule
    checkpoints = _Checkpoints(parts, position, run)
    parts.replica.network.train()
    while not schedule.is_over(position.step, [epoch.val_loss for epoch in position.history]):
        validation = schedule.next_validation(position.step)
        while position.step < validation:
            left_in_epoch = parts.seek(position.step)
            if not _make_steps(min(left_in_epoch, validation - position.step), position, steps, checkpoints):
                return False
        run.at(position.step)
        epoch = _validate(parts, position)
        run.log(epoch.step, epoch=epoch.epoch, **epoch.metrics)
        is_over = schedule.is_over(position.step, [epoch.val_loss for epoch in position.history])
        if is_over or checkpoints.age >= LEAST_SECONDS_BETWEEN_CHECKPOINTS[parts.device.type]:
            checkpoints.save()
    return True


def _make_steps(count: int, position: Position, steps: Steps, checkpoints: "_Checkpoints") -> bool:
    """So many optimizer steps of an epoch; False where the run was asked to stop before."""
    end = position.step + count
    while position.step < end:
        made = steps.make(end - position.step)
        position.step += made
        position.steps_since_validation += made
        if checkpoints.run.should_stop:
            return False
        if checkpoints.age > SECONDS_BETWEEN_CHECKPOINTS:
            checkpoints.save()
    return True


class _Checkpoints:
    """When the last one was saved; `age` in seconds."""

    def __init__(self, parts: Parts, position: Position, run: Run) -> None:
        self.parts, self.position, self.run = parts, position, run
        self._saved_at = time.monotonic()

    @property
    def age(self) -> float:
        return time.monotonic() - self._saved_at

    def save(self) -> None:
        _save(self.parts, self.position, self.run)
        self._saved_at = time.monotonic()


def _train_step(parts: Parts, position: Position) -> None:
    """One optimizer step, of device tensors only: nothing here waits for the device, or changes on the host."""
    replica = parts.replica
    inputs, labels = parts.batches.next()
    logits = replica(inputs)
    loss = parts.loss(logits, labels)
    replica.backward(loss)
    parts.update(position.step)
    replica.refresh()
    position.loss_sum += loss.detach()
    if labels.dim() == 2:  # shares of classes: the largest counts
        labels = labels.argmax(1)
    position.num_correct += (logits.detach().argmax(1) == labels).sum()


def _tensors_of_a_step(parts: Parts, position: Position) -> list[Tensor]:
    """All that `_train_step` changes."""
    replica, optimizer = parts.replica, parts.update.optimizer
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    networks = [*replica.master.state_dict().values(), *replica.network.state_dict().values()]
    return [
        *networks,
        *states,
        *parts.update.tensors(),
        position.loss_sum,
        position.num_correct,
        parts.batches.place,
    ]


def _validate(parts: Parts, position: Position) -> Epoch:
    """Measure, note, and keep the weights if they are the best; the training sums start again.

    Raises:
        DivergedError: the training or the validation loss is not finite.
    """
    with parts.update.measured(parts.replica):
        val_loss, val_accuracy = evaluate(parts, parts.splits.validation)
    train_loss = position.loss_sum.item() / position.steps_since_validation  # all batches have the same size
    if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
        raise DivergedError(f"loss is not finite at epoch {round(position.num_epochs, 1):g}")
    epoch = Epoch(
        step=position.step,
        epoch=position.num_epochs,
        train_loss=train_loss,
        train_accuracy=position.num_correct.item() / (position.steps_since_validation * parts.batches.batch_size),
        val_loss=val_loss,
        val_accuracy=val_accuracy,
    )
    position.history.append(epoch)
    position.steps_since_validation = 0
    position.loss_sum.zero_()
    position.num_correct.zero_()
    if position.best is epoch:
        kept = parts.update.kept(parts.replica.master)
        position.best_weights = {name: value.to("cpu", copy=True) for name, value in kept.items()}
    return epoch


@torch.inference_mode()
def evaluate(parts: Parts, split: Split, right: list[Tensor] | None = None) -> tuple[float, float]:
    """Mean cross entropy in nats and accuracy over all images of a split, in evaluation mode.

    Sums and counts, not means of batch means: the last batch is shorter. The network is left in training mode.

    Args:
        right: gets bool (N,) of each batch, in the order of the split: which images were classified correctly.
    """
    network = parts.replica.network.eval()
    loss_sum = torch.zeros((), dtype=torch.float64, device=parts.device)
    num_correct = torch.zeros((), dtype=torch.int64, device=parts.device)
    batches = evaluation_batches(split, batch_size=parts.evaluation_batch_size, preprocess=parts.preprocess)
    for inputs, labels in batches:
        logits = parts.replica(inputs)
        loss_sum += F.cross_entropy(logits, labels, reduction="none").sum(dtype=torch.float64)
        is_right = logits.argmax(1) == labels
        num_correct += is_right.sum()
        if right is not None:
            right.append(is_right)
    network.train()
    return loss_sum.item() / len(split), num_correct.item() / len(split)


def _measure_best(parts: Parts, position: Position, run: Run) -> tuple[dict[str, float], Tensor]:
    """Write the best weights, and measure them on the two splits that validation did not; and which test images were
    right, bool (N,)."""
    best = position.best
    tensors = {name: value.contiguous() for name, value in position.best_weights.items()}
    about = {"cell": run.key, "step": str(best.step)}
    write_file(run.folder / BEST_WEIGHTS_FILE, to_safetensors(tensors, about))
    parts.replica.load(position.best_weights)
    run.note(best_step=best.step, best_epoch=best.epoch)
    numbers = {"val/loss": best.val_loss, "val/accuracy": best.val_accuracy}
    right: list[Tensor] = []
    numbers["train/loss"], numbers["train/accuracy"] = evaluate(parts, parts.splits.train)
    numbers["test/loss"], numbers["test/accuracy"] = evaluate(parts, parts.splits.test, right)
    return numbers, torch.cat(right).cpu()


def _save(parts: Parts, position: Position, run: Run) -> None:
    device = parts.device
    state = {
        "step": position.step,
        "history": [asdict(epoch) for epoch in position.history],
        "best_weights": position.best_weights,
        "steps_since_validation": position.steps_since_validation,
        "loss_sum": position.loss_sum,
        "num_correct": position.num_correct,
        "model": parts.replica.master.state_dict(),
        "optimizer": parts.update.optimizer.state_dict(),
        **({"averages": parts.update.averages.values} if parts.update.averages else {}),
        "random_cpu": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    run.at(position.step)
    with run.saving() as path:
        save_checkpoint(path, run.key, state)


def _restore(parts: Parts, position: Position, state: dict[str, Any]) -> None:
    position.step = state["step"]
    position.history = [Epoch(**epoch) for epoch in state["history"]]
    position.best_weights = state["best_weights"]
    position.steps_since_validation = state["steps_since_validation"]
    position.loss_sum.copy_(state["loss_sum"])
    position.num_correct.copy_(state["num_correct"])
    parts.replica.load(state["model"])
    optimizer = parts.update.optimizer
    groups = optimizer.state_dict()["param_groups"]  # as built here: what the settings do not say is the device's
    optimizer.load_state_dict(state["optimizer"] | {"param_groups": groups})
    if parts.update.averages:
        parts.update.averages.load(state["averages"])
    torch.set_rng_state(state["random_cpu"])
    if state["random_cuda"] is not None and parts.device.type == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"], parts.device)
