"""The figure `accuracy`: nothing is lost by the harness's arithmetic, on real images.

No time is measured here, so as many trainings as there are cores run side by side, with one thread each. Each takes
minutes to half an hour: the answers are kept as they come, and the same command at the same commit goes on from there.
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
from harness.settings import ImageFolder
from harness.sources import data_fingerprint


@dataclass(frozen=True)
class Kept:
    """Answers in a folder, each under a digest of everything that it depends on.

    Attributes:
        about: what all of them depend on; None where that is not known (no commit, or changes since), so that none is
            taken from the folder.
    """

    folder: Path
    about: Mapping[str, Any] | None

    def sample(self, question: Mapping[str, Any]) -> Sample | None:
        if self.about is None or not self._path(question).exists():
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
    works = {
        textbook: "benchmarks.accuracy:textbook_accuracy",  # the slow ones begin first
        ours: "benchmarks.accuracy:harness_accuracy",
    }
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
    ]
    title = f"accuracy on real images, baseline, {request.rounds} seeds, at most {request.real_epochs} epochs"
    return Figure("accuracy", title, lines, contenders, samples)


def _kept(request: Request) -> Kept:
    """Reads the images into the cache on the way, once for all trainings."""
    assert request.real is not None
    data = data_fingerprint(ImageFolder(path=str(request.real.absolute())), cache=request.workload.scratch / "real")
    here = machine(request.workload.device)
    if here["dirty"] or not here["commit"]:
        return Kept(request.kept, None)
    return Kept(request.kept, {"data": data, **{name: here[name] for name in ("device", "versions", "commit")}})


def _measure(request: Request, kept: Kept, name: str, work: str, seed: int, on_sample: OnSample) -> Sample:
    question = {"contender": name, "seed": seed, "epochs": request.real_epochs}
    sample = kept.sample(question)
    if sample is None:
        arguments = (request.real, request.workload.scratch / "real", request.workload.device, request.real_epochs)
        done = together(work, (*arguments, seed), processes=1, threads=1)
        sample = Sample(done.total("test_accuracy"), {"seed": seed, "seconds": done.seconds})
        kept.keep(question, sample)
    on_sample(f"{name}, seed {seed}", sample)
    return sample
