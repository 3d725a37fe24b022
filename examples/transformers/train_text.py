"""A tiny language model of Python's own sources, byte by byte, by Hugging Face's Trainer; nothing is downloaded.

Only `train` knows of the harness.
"""

import os
from pathlib import Path

import torch
import transformers
from torch.utils.data import Dataset

import harness
from harness.integrations.transformers import HarnessCallback, declared, seed_all, training_options

LENGTH = 32  # bytes a piece


class Pieces(Dataset):
    """Pieces of a text, a row of bytes each, which are their own labels."""

    def __init__(self, text: bytes) -> None:
        self.rows = torch.frombuffer(bytearray(text), dtype=torch.uint8).long().view(-1, LENGTH)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def train(run: harness.Run) -> None:
    settings = run.settings
    torch.set_num_threads(1)
    fit, validation, test = texts(256 * LENGTH)

    seed_all(run, "weights")
    config = transformers.GPT2Config(
        vocab_size=256,
        n_positions=LENGTH,
        n_embd=settings.model.width,
        n_layer=settings.model.layers,
        n_head=2,
        embd_pdrop=settings.dropout,
        resid_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        bos_token_id=0,
        eos_token_id=0,
    )
    arguments = transformers.TrainingArguments(
        **training_options(run),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
    )
    trainer = transformers.Trainer(
        model=transformers.GPT2LMHeadModel(config),
        args=arguments,
        train_dataset=Pieces(fit),
        eval_dataset=Pieces(validation),
        callbacks=[HarnessCallback(run)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=run.saved())
    if run.should_stop:
        return
    run.finish(**declared(run, trainer.evaluate(Pieces(test), metric_key_prefix="test")))


def texts(length: int) -> list[bytes]:
    """The beginnings of three modules of the standard library; the same for all seeds."""
    library = Path(os.__file__).parent
    return [(library / name).read_bytes()[:length] for name in ("argparse.py", "optparse.py", "configparser.py")]
