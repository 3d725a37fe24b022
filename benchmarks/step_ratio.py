"""Is a training step as fast as in another revision? Both take turns, a few steps each, in processes of their own.

    python -m benchmarks.step_ratio 13c103f                     # task3's baseline on this machine's CPU
    python -m benchmarks.step_ratio 13c103f --variant model-1 --rounds 60

The other revision is checked out into a temporary folder that is removed. Times are of the process (CPU seconds), so
that what else runs weighs little; a ratio is formed within each round, and the median, with the quartiles, is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="of git, to compare the working tree with")
    parser.add_argument("--variant", default="baseline", help="of task3")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20, help="a round")
    options = parser.parse_args()
    with checked_out(options.revision) as other:
        print(json.dumps(compare(other, options), indent=1))


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A temporary folder with another revision, its convolutions compiled."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        subprocess.run(["git", "worktree", "add", "--detach", "-q", str(other), revision], cwd=ROOT, check=True)
        try:
            _compile_kernels(other)
            yield other
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(other)], cwd=ROOT, check=True)


def compare(other: Path, options: argparse.Namespace) -> dict[str, object]:
    """Seconds a step in both, and the ratio of ours to the other's: median and quartiles over rounds."""
    sides = {
        "here": Side(ROOT, __file__, options.variant),
        options.revision: Side(other, __file__, options.variant),
    }
    here, there = sides.values()
    seconds: list[tuple[float, float]] = []
    for number in range(options.rounds + 2):
        pair = [float(side.ask(options.steps)) for side in ((here, there) if number % 2 else (there, here))]
        seconds.append((pair[0], pair[1]) if number % 2 else (pair[1], pair[0]))
    for side in sides.values():
        side.end()
    ratios = [ours / theirs for ours, theirs in seconds[2:]]  # the first two rounds warm up
    low, median, high = statistics.quantiles(ratios, n=4)
    return {
        "variant": options.variant,
        "cpu_seconds_a_step": {
            name: statistics.median(it) for name, it in zip(sides, zip(*seconds[2:], strict=True), strict=True)
        },
        "ratio": {"median": median, "quartiles": [low, high], "rounds": options.rounds},
    }


class Side:
    """A process with the code of one revision, which answers a line with a line.

    Args:
        script: what it runs, with `--serve` and the arguments.
    """

    def __init__(self, root: Path, script: str, *arguments: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(root)}
        command = [sys.executable, script, "--serve", *arguments]
        self.process = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request: object) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None  # noqa: PT018
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(variant: str) -> None:
    """Reads a number of steps a line, makes them, and answers with CPU seconds a step."""
    import numpy as np
    import torch

    from harness.study.load import load_study
    from harness.trainers.images import train
    from harness.trainers.images.arithmetic import environment
    from harness.trainers.images.data.sources import ImageArrays
    from harness.trainers.images.machine import native_precision
    from harness.trainers.images.model_summary import variant_settings
    from harness.trainers.images.settings import with_overrides

    random, device, precision = np.random.default_rng(0), torch.device("cpu"), native_precision("cpu")
    pixels = random.integers(0, 256, (6000, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(6000) % 10
    arrays = ImageArrays(pixels, labels, pixels[:100], labels[:100], tuple("0123456789"))
    settings = with_overrides(variant_settings(load_study("task3"), variant), {"training.precision": precision})
    with environment(threads=1, device=device, precision=precision):
        parts, position = train.build_parts(settings, arrays, seed=0, device=device), train.Position()
        parts.replica.network.train()
        for line in sys.stdin:
            began = time.process_time()
            if hasattr(parts.batches, "between"):  # before 57932c9
                for batch in parts.batches.between(position.step, position.step + int(line)):
                    train._train_step(parts, position, *batch)  # type: ignore[call-arg]
            else:
                for _ in range(int(line)):
                    if position.step % parts.batches.steps_per_epoch == 0:
                        parts.batches.seek(position.step)
                    train._train_step(parts, position)
                    position.step += 1
            print((time.process_time() - began) / int(line), flush=True)


def _compile_kernels(other: Path) -> None:
    """The other revision's convolutions, from its own source; git keeps no compiled ones."""
    project = tomllib.loads((other / "pyproject.toml").read_text())
    for it in project["tool"].get("setuptools", {}).get("ext-modules", []):
        library = other / f"{it['name'].replace('.', '/')}.abi3.so"
        command = ["cc", *it["extra-compile-args"], "-shared", "-fPIC", "-o", str(library), *it["sources"]]
        subprocess.run(command, cwd=other, check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main()
