"""`python -m benchmarks`: measure, print, keep. README.md says what each figure means."""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.figures import CUDA_FIGURES, FIGURES
from benchmarks.machine import machine
from benchmarks.report import Figure, print_figure, results_path, save
from benchmarks.sample import OnSample, Sample
from benchmarks.workload import Request, Workload, write_images
from harness.hardware import resolve_device, usable_cores

EPOCHS = 7  # what real baseline cells take before they stop early (docs/results: 6.0 to 7.5)
TRAINING = {
    "baseline",
    "batch-norm",
    "model-1",
    "overhead",
    "estimate",
    "data",
    "convolutions",
}  # the figures that need images
FULL_PROTOCOL_EPOCHS = 10
IMAGES, CUDA_IMAGES, CUDA_EPOCHS = 12_500, 50_000, 8
CUDA_SECONDS = 530  # of everything; machines with a GPU are often lent by the ten minutes


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if "accuracy" in (options.only or ()) and options.real is None:
        parser.error("accuracy needs real images: --real PATH, a folder with train/<class>/* and test/<class>/*")
    device = resolve_device(options.device)
    console = Console(highlight=False, width=140)
    ours = CUDA_FIGURES if device.startswith("cuda") else FIGURES
    left_out = {"chaos", "storms", "scale", "cluster", *(() if options.real else ("accuracy",))}
    names = options.only or [name for name in ours if name not in left_out]
    about = machine(device)
    path = results_path(options.output, about["device"])
    console.print(f"{about['device']}, {about['cores']} cores, load {about['load_average'][0]}; results go to {path}")
    if about["load_average"][0] > 0.5:
        console.print("The machine is busy: ratios suffer, absolute numbers more.", style="yellow")
    figures: list[Figure] = []
    options.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.scratch) as scratch:
        request = _request(options, device, Path(scratch).absolute())
        if TRAINING & set(names):
            write_images(request.workload)
        for name in names:
            figures.append((FIGURES | CUDA_FIGURES)[name](request, _say(console, name)))
            save(path, about, _plain(options), figures)
    for figure in figures:
        print_figure(console, figure)
    console.print(f"Medians over rounds; a ratio is formed within each round. Everything is in {path}")


def _request(options: argparse.Namespace, device: str, scratch: Path) -> Request:
    is_cuda = device.startswith("cuda")
    images = options.images or (CUDA_IMAGES if is_cuda else IMAGES)
    workload = Workload(scratch, images, options.epochs or (CUDA_EPOCHS if is_cuda else EPOCHS), device)
    rounds = options.rounds or (1 if is_cuda else 3)
    processes = options.workers or (usable_cores() if device == "cpu" else 4)
    real_epochs = options.epochs or FULL_PROTOCOL_EPOCHS
    kept, asked = options.scratch / "benchmark-accuracy", options
    return Request(
        workload,
        rounds,
        processes,
        asked.cells,
        asked.largest,
        asked.real,
        real_epochs,
        kept,
        kills=asked.kills,
        proposals=asked.proposals,
        storms=asked.storms,
        storm_cells=asked.storm_cells,
        cluster_images=asked.images,
        ends_at=time.monotonic() + (asked.seconds or (CUDA_SECONDS if is_cuda else math.inf)),
    )


def _say(console: Console, figure: str) -> OnSample:
    def say(name: str, sample: Sample) -> None:
        console.print(f"{figure}: {name}: {sample.value:,.3f}", style="dim")

    return say


def _plain(options: argparse.Namespace) -> dict[str, object]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FIGURES | CUDA_FIGURES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; there are {', '.join(FIGURES | CUDA_FIGURES)}")
    return names


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, not {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", type=_names, help=f"figures, comma-separated: {', '.join(FIGURES | CUDA_FIGURES)}")
    add("--rounds", type=_count, help="repetitions; seeds of `accuracy`; 3, or 1 on CUDA, by default")
    add("--images", type=_count, help=f"for training and validation; {IMAGES}, or {CUDA_IMAGES} on CUDA, by default")
    add("--epochs", type=_count, help=f"of each training; {EPOCHS}, {CUDA_EPOCHS} on CUDA, 10 for `accuracy`")
    add("--cells", type=_count, default=8, help="of the study")
    add("--seconds", type=_count, help=f"on CUDA: begin nothing that would end later; {CUDA_SECONDS} by default")
    add("--workers", type=_count, help="processes side by side; as many as cores, or 4 on CUDA, by default")
    add("--device", default="cpu", help="cpu (by default), cuda, cuda:N or auto")
    add(
        "--largest",
        type=_count,
        default=100_000,
        help="cells to plan; `store` has 20,000 at most, `results` 10,000, `core` 1,000",
    )
    add("--kills", type=_count, default=200, help="of `chaos`; its other troubles are in proportion")
    add(
        "--proposals",
        type=_count,
        default=60,
        help="of `judged`: that `judge` itself judges, in streams of 300 at most",
    )
    add("--storms", type=_count, default=20, help="of `storms`; a fifth as many of each example")
    add("--storm-cells", type=_count, default=60, help="of the study in each of `storms`")
    add("--real", type=Path, metavar="PATH", help="PATH/{train,test}/<class>/*: real images, for `accuracy`")
    add("--output", type=Path, default=Path(__file__).parent / "results", help="folder for the JSON file")
    add("--scratch", type=Path, default=Path("mlruns"), help="folder on the disk to measure with")
    return parser


if __name__ == "__main__":
    main()
