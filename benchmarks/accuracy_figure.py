"""The figure `accuracy`: nothing is lost by the harness's arithmetic, on real images.

No time is measured here, so as many trainings as there are cores run side by side, with one thread each. Each takes
minutes to half an hour: the answers are kept as they come, and the same command goes on from there as long as the
sources that an answer depends on are the same.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.processes import together
from benchmarks.report import Figure
from benchmarks.sample import Described, Line, OnSample, Sample, values
from benchmarks.workload import Request
from harness.trainers.images.data.sources import data_fingerprint
from harness.trainers.images.machine import winograd_problem
from harness.trainers.images.settings import ImageFolder, Settings

TEXTBOOK, HARNESS = "benchmarks.accuracy:textbook_accuracy", "benchmarks.accuracy:harness_accuracy"


@dataclass(frozen=True)
class Kept:
    """Answers in a folder, each under a digest of everything that it depends on.

    Attributes:
        about: what all of them depend on.
    """

    folder: Path
    about: Mapping[str, Any]

    def sample(self, question: Mapping[str, Any]) -> Sample | None:
        if not self._path(question).exists():
            return None
        answer = json.loads(self._path(question).read_text())
        return Sample(answer["value"], answer["facts"])

    def keep(self, question: Mapping[str, Any], sample: Sample) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        answer = {"question": dict(question), "value": sample.value, "facts": dict(sample.facts)}
        partial = self._path(question).with_suffix(".partial")
        partial.write_text(json.dumps(answer, indent=1))
        partial.replace(self._path(question))

    def _path(self, question: Mapping[str, Any]) -> Path:
        text = json.dumps([self.about, question], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def measure_accuracy(request: Request, on_sample: OnSample) -> Figure:
    """Test accuracy of the textbook loop in float32 and of the harness in native precision, a seed a round."""
    from harness.stats.intervals import t_interval

    assert request.real is not None
    textbook, ours = "textbook, float32", f"harness, {request.workload.precision}"
    works = {textbook: TEXTBOOK, ours: HARNESS}  # the slow ones begin first
    kept = _kept(request)
    with ThreadPoolExecutor(request.processes) as pool:
        answers = {
            name: [pool.submit(_measure, request, kept, name, work, seed, on_sample) for seed in range(request.rounds)]
            for name, work in works.items()
        }
        samples = {name: [answer.result() for answer in row] for name, row in answers.items()}
    differences = 100 * (np.array(values(samples, ours)) - np.array(values(samples, textbook)))
    low, high = t_interval(differences)
    contenders = [Described(name, "test accuracy at the lowest validation loss; one thread") for name in works]
    lines = [Line(name, "fraction", values(samples, name)) for name in works]
    lines += [
        Line(f"mean of {ours} - {textbook}", "points", (float(differences.mean()),)),
        Line("95% t interval, low end", "points", (float(low),)),
        Line("95% t interval, high end", "points", (float(high),)),
        Line("loss at the first validation, relative difference", "%", _apart(samples[ours], samples[textbook], 1)),
        Line("loss over the validations of both, relative difference", "%", _apart(samples[ours], samples[textbook])),
    ]
    title = f"accuracy on real images, baseline, {request.rounds} seeds, at most {request.real_epochs} epochs"
    return Figure("accuracy", title, lines, contenders, samples)


def _apart(ours: list[Sample], theirs: list[Sample], count: int | None = None) -> tuple[float, ...]:
    """Of the sums of the first `count` validation losses (None: of as many as both have), in percent, a seed each.

    Small differences grow by themselves, and when a training stops is chance: the first tell most about the arithmetic.
    """
    pairs = [(our.facts["val_losses"], their.facts["val_losses"]) for our, their in zip(ours, theirs, strict=True)]
    ends = [count or min(map(len, pair)) for pair in pairs]
    return tuple(100 * (sum(our[:end]) / sum(their[:end]) - 1) for (our, their), end in zip(pairs, ends, strict=True))


def _kept(request: Request) -> Kept:
    """Reads the images into the cache on the way, once for all trainings."""
    assert request.real is not None
    data = data_fingerprint(ImageFolder(path=str(request.real.absolute())), cache=request.workload.scratch / "real")
    here = machine(request.workload.device)
    return Kept(request.kept, {"data": data, **{name: here[name] for name in ("device", "versions")}})


def _sources(work: str) -> str:
    """A digest of the files that an answer depends on: for the textbook, its own, and what gives it its start."""
    if work == TEXTBOOK:
        images = Path(__file__).parent.parent / "harness" / "trainers" / "images"
        paths = [Path(__file__).parent / f"{name}.py" for name in ("accuracy", "textbook", "peer")]
        paths += [images / "streams.py", *sorted((*images.glob("data/*.py"), *images.glob("models/*.py")))]
    else:
        package = Path(__file__).parent.parent / "harness"
        paths = [Path(__file__).parent / "accuracy.py", *sorted((*package.rglob("*.py"), *package.rglob("*.c")))]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _measure(request: Request, kept: Kept, name: str, work: str, seed: int, on_sample: OnSample) -> Sample:
    settings = Settings().identity() | ({} if work == TEXTBOOK else {"convolutions": winograd_problem()})
    question = {"contender": name, "seed": seed, "epochs": request.real_epochs, "sources": _sources(work)}
    question |= {"settings": settings}
    sample = kept.sample(question)
    if sample is None:
        arguments = (request.real, request.workload.scratch / "real", request.workload.device, request.real_epochs)
        done = together(work, (*arguments, seed), processes=1, threads=1)
        (facts,) = done.facts
        kept_facts = {"seed": seed, "seconds": done.seconds, "val_losses": facts["val_losses"]}
        sample = Sample(facts["test_accuracy"], kept_facts)
        kept.keep(question, sample)
    on_sample(f"{name}, seed {seed}", sample)
    return sample
