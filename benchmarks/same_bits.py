"""Does training give the same bits on a CPU as in another revision, and no slower? Whole small cells, in turn.

    python -m benchmarks.same_bits 57932c9^           # the revision before steps were replayed as CUDA graphs

Six variants of task3, two epochs each, in its own sizes and this machine's precision, on few made-up images. The best
weights and all final numbers are compared to the bit, CPU seconds by their ratio within each round. Exit code 1 where
bits differ.
"""

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.step_ratio import Side

VARIANTS = ("baseline", "batch-norm", "optimizer-adamax", "dropout-0.2", "augment-gentle", "augment-harsh")
EPOCHS = 2


def main() -> int:
    from benchmarks.step_ratio import ROOT, Side, checked_out

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="of git, to compare the working tree with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=400, help="for training and validation")
    parser.add_argument("--variants", type=lambda text: text.split(","), default=VARIANTS, help="of task3")
    options = parser.parse_args()
    with checked_out(options.revision) as other:
        here, there = (Side(it, __file__, str(options.images)) for it in (ROOT, other))
        found = {variant: _compared(here, there, variant, options.rounds) for variant in options.variants}
        here.end()
        there.end()
    print(json.dumps(vars(options) | {"variants": found}, indent=1))
    return 0 if all(it["is_same"] for it in found.values()) else 1


def _compared(here: "Side", there: "Side", variant: str, rounds: int) -> dict[str, object]:
    ratios, digests = [], set()
    for number in range(rounds + 1):
        sides = (here, there) if number % 2 else (there, here)
        answers = {id(side): json.loads(side.ask(variant)) for side in sides}
        digests |= {it["digest"] for it in answers.values()}
        ratios.append(answers[id(here)]["seconds"] / answers[id(there)]["seconds"])
    measured = ratios[1:]  # the first round warms up
    return {"is_same": len(digests) == 1, "ratio": statistics.median(measured), "range": [min(measured), max(measured)]}


def serve(num_images: int) -> None:
    """Reads a variant a line, trains it, and answers with a digest of what came out and CPU seconds."""
    import numpy as np
    from safetensors.torch import load_file

    from benchmarks.bare import bare_run
    from harness.plan.cell import make_cells
    from harness.study.load import load_study
    from harness.trainers.images.data.sources import ImageArrays
    from harness.trainers.images.machine import native_precision
    from harness.trainers.images.model_summary import variant_settings
    from harness.trainers.images.settings import with_overrides
    from harness.trainers.images.train import BEST_WEIGHTS_FILE, train_on
    from harness.trainers.images.trainer import ImageTrainer

    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8), np.arange(num_images) % 10
    arrays = ImageArrays(pixels, labels, pixels[:100], labels[:100], tuple("0123456789"))
    overrides = {"training.max_epochs": EPOCHS, "training.precision": native_precision("cpu")}
    for line in sys.stdin:
        settings = with_overrides(variant_settings(load_study("task3"), line.strip()), overrides)
        (cell,) = make_cells(ImageTrainer(), settings, [0], {"data": "made up"})
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            run = bare_run(cell, Path(folder), "cpu")
            train_on(run, arrays)
            seconds = time.process_time() - began
            digest = hashlib.sha256(json.dumps(run.final, sort_keys=True).encode())
            for name, weight in sorted(load_file(Path(folder) / BEST_WEIGHTS_FILE).items()):
                digest.update(name.encode() + weight.numpy().tobytes())
        print(json.dumps({"digest": digest.hexdigest(), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
    else:
        sys.exit(main())
