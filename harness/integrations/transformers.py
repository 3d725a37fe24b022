"""Hugging Face's `Trainer` under a `harness.Run`: a callback that logs, saves and stops.

    arguments = TrainingArguments(**training_options(run), ...)
    trainer = transformers.Trainer(model, arguments, callbacks=[HarnessCallback(run)], ...)
    trainer.train(resume_from_checkpoint=run.saved())

The `Trainer` keeps its generators' states and its place in the data in its checkpoints, so that a training that was
interrupted goes on from the last one as if it had not been.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from harness.trainers.run import Run


class HarnessCallback(transformers.TrainerCallback):
    """Logs what each evaluation of training finds, saves what the `Trainer` saves, and asks whether to stop.

    `eval_loss` is the study's `val/loss`; what the study does not declare is left out.
    """

    def __init__(self, run: Run) -> None:
        self.run, self._is_training = run, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._is_training = True

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._is_training = False

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **more: Any) -> None:
        if self._is_training:
            found = declared(self.run, metrics, "eval", "val")
            self.run.log(state.global_step, epoch=state.epoch, **found)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        with self.run.saving() as path:
            shutil.copytree(saved, path)
        if self.run.should_stop:
            control.should_training_stop = True


def declared(run: Run, metrics: Mapping[str, float], prefix: str = "test", split: str = "test") -> dict[str, float]:
    """What the study declares of metrics that the `Trainer` calls `<prefix>_<name>`, as `<split>/<name>`."""
    names = {f"{prefix}_{name.partition('/')[2]}": name for name in run.metrics.names if name.startswith(f"{split}/")}
    return {name: metrics[theirs] for theirs, name in names.items() if theirs in metrics}


def seed_all(run: Run, *purpose: str | int) -> None:
    """Seeds all global generators for one purpose, such as the weights of a new model."""
    transformers.set_seed(run.seed_for(*purpose) % 2**32)


def training_options(run: Run) -> dict[str, Any]:
    """For `TrainingArguments`: the run's device, seed and folder; evaluation and checkpoint each epoch; no reports."""
    return {
        "output_dir": str(run.folder / "transformers"),
        "use_cpu": run.device == "cpu",
        "seed": run.seed_for("training") % 2**32,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
