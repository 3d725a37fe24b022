"""The training of one cell, readable from top to bottom; `run_cell` is the one function that others call.

The protocol: each epoch in a new order, without its last, shorter batch; a validation every `interval` steps; stop when
the validation loss has stopped falling; the numbers are those of the weights with the lowest validation loss, over
whole splits, in evaluation mode.

An interruption at any line loses nothing. A validation is reported first (the caller's `on_event` makes it durable)
and checkpointed after that; a death in between repeats it, with the same numbers, and the reader keeps the later one.
Orders and augmentation are functions of (seed, epoch); the stream of dropout is in the checkpoint.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import DeviceLostError, DivergedError, StudyError
from harness.hardware import precision_problem, winograd_pays
from harness.plan.cell import Cell
from harness.store.result import Epoch, Result
from harness.trainers.images.arithmetic import (
    Replica,
    device_name,
    environment,
    is_out_of_memory,
    is_poisoned,
    peak_memory_bytes,
)
from harness.trainers.images.augment import make_edits
from harness.trainers.images.checkpoint import (
    UnusableCheckpointError,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
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
from harness.trainers.images.models import build_model
from harness.trainers.images.readback import check_readback, readback
from harness.trainers.images.schedule import Schedule, make_schedule
from harness.trainers.images.settings import Optimizer, PluginModel
from harness.trainers.images.streams import derive_seed

CHECKPOINT_FILE = "checkpoint.pt"
BEST_WEIGHTS_FILE = "best.safetensors"
SECONDS_BETWEEN_CHECKPOINTS = 60.0  # each validation makes one; so do steps, where validations are further apart
# A validation sooner after a checkpoint than this makes none: on a fast GPU half an epoch takes as long as saving it.
LEAST_SECONDS_BETWEEN_CHECKPOINTS = {"cpu": 0.0, "cuda": 10.0}
# Of an evaluation batch, as the network sees it: on a CPU 256 images of 32x32 (more are no faster and take memory), on
# CUDA 2,048 of them or 41 of 224x224: with 512 filters still 2^30 elements, which kernels can count in 32 bits. Never
# fewer images than a training batch.
EVALUATION_PIXELS = {"cpu": 2**18, "cuda": 2**21}

EventSink = Callable[[dict[str, Any]], None]


def run_cell(cell: Cell, folder: Path, *, device: str, cache: Path, on_event: EventSink) -> Result:
    """Train one cell, or continue it, and measure its best weights; in the calling process.

    Afterwards `folder` holds `best.safetensors` (the weights with the lowest validation loss) and `checkpoint.pt` (the
    end of training, so that a second call repeats the measurement only; the caller deletes it once the result is safe).
    On the CPU the result is the same, bit for bit, however often the cell was interrupted.

    Args:
        folder: exists, and belongs to this cell alone.
        device: `cpu`, `cuda` or `cuda:<index>`.
        cache: where `sources.load_images` keeps decoded images.
        on_event: gets {"event": "started" | "resumed" | "restarted" | "validation", ...}; once it returns, the event
            is durable.

    Returns:
        A result that is finished, diverged or out-of-memory; commit and time are the caller's to add.

    Raises:
        StudyError, DataError: the settings do not fit the images, or files are missing.
        StoreError: a file in `folder` cannot be read or written.
    """
    arrays = load_images(cell.settings.data, cache=cache)
    return train_cell(cell, arrays, folder, device=torch.device(device), on_event=on_event)


def train_cell(cell: Cell, arrays: ImageArrays, folder: Path, *, device: torch.device, on_event: EventSink) -> Result:
    """`run_cell` on images that are in memory already."""
    progress = Progress()
    outcome: dict[str, Any] = {"versions": _versions(device)}
    training = cell.settings.training
    assert training.precision != "auto"
    with environment(threads=training.threads, device=device, precision=training.precision):
        try:
            trainer = build_trainer(cell, arrays, device)
            _check(trainer)
            outcome["parameters"] = sum(weight.numel() for weight in trainer.replica.master.parameters())
            _start(trainer, progress, folder, on_event, outcome["parameters"])
            _train(trainer, progress, folder, on_event)
            outcome |= {"status": "finished", **_measure_best(trainer, progress, folder)}
        except DivergedError as error:
            outcome |= {"status": "diverged", "reason": str(error)}
        except (RuntimeError, MemoryError) as error:
            if is_poisoned(error):
                raise DeviceLostError(f"the CUDA context is lost: {str(error).partition(chr(10))[0]}") from error
            if not is_out_of_memory(error):
                raise
            outcome |= {"status": "out-of-memory", "reason": str(error).partition("\n")[0] or "out of memory"}
        return Result(
            key=cell.key,
            seed=cell.seed,
            num_steps=progress.step,
            num_epochs=progress.num_epochs,
            seconds=progress.seconds,
            peak_memory_bytes=peak_memory_bytes(device),
            device=device_name(device),
            precision=cell.settings.training.precision,
            threads=torch.get_num_threads(),
            data_fingerprint=dict(cell.fingerprints)["data"],
            **outcome,
        )


def _versions(device: torch.device) -> str:
    """What computes on this machine: the same for all variants, whether their convolutions suit it or not."""
    convolutions = ", harness's convolutions" if device.type == "cpu" and winograd_pays() else ""
    return f"torch {torch.__version__}{convolutions}"


@dataclass(frozen=True)
class Trainer:
    """The objects that train one cell."""

    cell: Cell
    device: torch.device
    splits: Splits
    preprocess: Preprocess
    batches: TrainingBatches
    replica: Replica
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    evaluation_batch_size: int


class Progress:
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
        self.started_at = time.perf_counter()  # moved back by the time that earlier, interrupted runs took

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started_at

    @property
    def num_epochs(self) -> float:
        return self.step / self.steps_per_epoch

    @property
    def best(self) -> Epoch:
        return min(self.history, key=lambda epoch: epoch.val_loss)


def build_trainer(cell: Cell, arrays: ImageArrays, device: torch.device) -> Trainer:
    """Everything that the settings describe.

    Raises:
        StudyError, DataError: the settings do not fit the images, or files are missing.
    """
    settings = cell.settings
    training = settings.training
    if problem := precision_problem(training.precision, device.type):
        raise StudyError(problem)
    splits = make_splits(arrays, fraction=training.validation_fraction, seed=training.split_seed, device=device)
    height, width = splits.image_size
    side = settings.preprocessing.resize
    input_size = (height, width) if side is None else (side, side)
    model = build_model(settings.model, len(splits.classes), image_size=input_size, seed=cell.seed)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert training.precision != "auto"
    is_known = not isinstance(settings.model, PluginModel)
    is_winograd = device.type == "cpu" and training.threads == 1 and winograd_pays()  # its kernels know one thread
    replica = Replica(model, training.precision, is_known=is_known, is_winograd=is_winograd)
    preprocess = Preprocess(settings.preprocessing, width=width, device=device, dtype=replica.input_dtype)
    edits = make_edits(settings.augmentation, height=height, width=width)
    batches = TrainingBatches(
        splits.train, batch_size=training.batch_size, edits=edits, preprocess=preprocess, seed=cell.seed
    )
    return Trainer(
        cell=cell,
        device=device,
        splits=splits,
        preprocess=preprocess,
        batches=batches,
        replica=replica,
        optimizer=make_optimizer(settings.optimizer, model.parameters(), device),
        schedule=make_schedule(training, batches.steps_per_epoch),
        evaluation_batch_size=max(training.batch_size, EVALUATION_PIXELS[device.type] // math.prod(input_size)),
    )


def _check(trainer: Trainer) -> None:
    """Assert that the objects do what the settings say."""
    splits = trainer.splits
    found = readback(trainer.replica, trainer.optimizer, trainer.batches, trainer.schedule, splits)
    check_readback(trainer.cell.settings, found, num_images=len(splits.train) + len(splits.validation))


def make_optimizer(settings: Optimizer, weights: Iterable[nn.Parameter], device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over the weights that train, in its fastest form: fused where PyTorch has that."""
    trained = [weight for weight in weights if weight.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD(trained, rate, momentum=settings.momentum, weight_decay=decay, fused=True)
    if settings.name == "adam":
        return torch.optim.Adam(trained, rate, weight_decay=decay, fused=True)
    if settings.name == "adamw":
        return torch.optim.AdamW(trained, rate, weight_decay=decay, fused=True)
    return torch.optim.Adamax(trained, rate, weight_decay=decay, foreach=device.type == "cuda")


def _start(trainer: Trainer, progress: Progress, folder: Path, on_event: EventSink, parameters: int) -> None:
    """From the checkpoint, if there is one that can be used; from the beginning otherwise, saying why."""
    torch.manual_seed(derive_seed(trainer.cell.seed, "dropout"))
    progress.steps_per_epoch = trainer.schedule.steps_per_epoch
    progress.loss_sum = progress.loss_sum.to(trainer.device)
    progress.num_correct = progress.num_correct.to(trainer.device)
    try:
        state = load_checkpoint(folder / CHECKPOINT_FILE, trainer.cell.key)
    except UnusableCheckpointError as error:
        on_event({"event": "restarted", "reason": str(error)})
        state = None
    if state is None:
        on_event({"event": "started", "step": 0, "parameters": parameters, "device": device_name(trainer.device)})
    else:
        _restore(trainer, progress, state)
        on_event({"event": "resumed", "step": progress.step})


def _train(trainer: Trainer, progress: Progress, folder: Path, on_event: EventSink) -> None:
    schedule = trainer.schedule
    saved_at = time.monotonic()
    trainer.replica.network.train()
    while not schedule.is_over(progress.step, [epoch.val_loss for epoch in progress.history]):
        for inputs, labels in trainer.batches.between(progress.step, schedule.next_validation(progress.step)):
            _train_step(trainer, progress, inputs, labels)
            if time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                _save(trainer, progress, folder)
                saved_at = time.monotonic()
        epoch = _validate(trainer, progress)
        on_event({"event": "validation", **asdict(epoch)})
        is_over = schedule.is_over(progress.step, [epoch.val_loss for epoch in progress.history])
        if is_over or time.monotonic() - saved_at >= LEAST_SECONDS_BETWEEN_CHECKPOINTS[trainer.device.type]:
            _save(trainer, progress, folder)
            saved_at = time.monotonic()


def _train_step(trainer: Trainer, progress: Progress, inputs: Tensor, labels: Tensor) -> None:
    """One optimizer step. Nothing here waits for the device."""
    replica = trainer.replica
    logits = replica(inputs)
    loss = F.cross_entropy(logits, labels)
    replica.backward(loss)
    trainer.optimizer.step()
    replica.refresh()
    progress.step += 1
    progress.steps_since_validation += 1
    progress.loss_sum += loss.detach()
    progress.num_correct += (logits.detach().argmax(1) == labels).sum()


def _validate(trainer: Trainer, progress: Progress) -> Epoch:
    """Measure, note, and keep the weights if they are the best; the training sums start again.

    Raises:
        DivergedError: the training or the validation loss is not finite.
    """
    val_loss, val_accuracy = evaluate(trainer, trainer.splits.validation)
    train_loss = progress.loss_sum.item() / progress.steps_since_validation  # all batches have the same size
    if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
        raise DivergedError(f"loss is not finite at epoch {round(progress.num_epochs, 1):g}")
    epoch = Epoch(
        step=progress.step,
        epoch=progress.num_epochs,
        train_loss=train_loss,
        train_accuracy=progress.num_correct.item() / (progress.steps_since_validation * trainer.batches.batch_size),
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        seconds=progress.seconds,
    )
    progress.history.append(epoch)
    progress.steps_since_validation = 0
    progress.loss_sum.zero_()
    progress.num_correct.zero_()
    if progress.best is epoch:
        master = trainer.replica.master
        progress.best_weights = {name: value.to("cpu", copy=True) for name, value in master.state_dict().items()}
    return epoch


@torch.inference_mode()
def evaluate(trainer: Trainer, split: Split) -> tuple[float, float]:
    """Mean cross entropy in nats and accuracy over all images of a split, in evaluation mode.

    Sums and counts, not means of batch means: the last batch is shorter. The network is left in training mode.
    """
    network = trainer.replica.network.eval()
    loss_sum = torch.zeros((), dtype=torch.float64, device=trainer.device)
    num_correct = torch.zeros((), dtype=torch.int64, device=trainer.device)
    batches = evaluation_batches(split, batch_size=trainer.evaluation_batch_size, preprocess=trainer.preprocess)
    for inputs, labels in batches:
        logits = trainer.replica(inputs)
        loss_sum += F.cross_entropy(logits, labels, reduction="none").sum(dtype=torch.float64)
        num_correct += (logits.argmax(1) == labels).sum()
    network.train()
    return loss_sum.item() / len(split), num_correct.item() / len(split)


def _measure_best(trainer: Trainer, progress: Progress, folder: Path) -> dict[str, Any]:
    """Write the best weights, and measure them on the two splits that validation did not."""
    best = progress.best
    tensors = {name: value.contiguous() for name, value in progress.best_weights.items()}
    about = {"cell": trainer.cell.key, "step": str(best.step)}
    write_atomically(folder / BEST_WEIGHTS_FILE, to_safetensors(tensors, about))
    trainer.replica.load(progress.best_weights)
    numbers: dict[str, Any] = {"best_step": best.step, "best_epoch": best.epoch}
    numbers |= {"val_loss": best.val_loss, "val_accuracy": best.val_accuracy}
    for name, split in {"train": trainer.splits.train, "test": trainer.splits.test}.items():
        numbers[f"{name}_loss"], numbers[f"{name}_accuracy"] = evaluate(trainer, split)
    return numbers


def _save(trainer: Trainer, progress: Progress, folder: Path) -> None:
    device = trainer.device
    state = {
        "step": progress.step,
        "seconds": progress.seconds,
        "history": [asdict(epoch) for epoch in progress.history],
        "best_weights": progress.best_weights,
        "steps_since_validation": progress.steps_since_validation,
        "loss_sum": progress.loss_sum,
        "num_correct": progress.num_correct,
        "model": trainer.replica.master.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "random_cpu": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    save_checkpoint(folder / CHECKPOINT_FILE, trainer.cell.key, state)


def _restore(trainer: Trainer, progress: Progress, state: dict[str, Any]) -> None:
    progress.step = state["step"]
    progress.started_at -= state["seconds"]
    progress.history = [Epoch(**epoch) for epoch in state["history"]]
    progress.best_weights = state["best_weights"]
    progress.steps_since_validation = state["steps_since_validation"]
    progress.loss_sum.copy_(state["loss_sum"])
    progress.num_correct.copy_(state["num_correct"])
    trainer.replica.load(state["model"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random_cpu"])
    if state["random_cuda"] is not None and trainer.device.type == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"], trainer.device)
