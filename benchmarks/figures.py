"""The figures by name, in the order of measuring."""

from collections.abc import Callable
from functools import partial

from benchmarks.accuracy_figure import measure_accuracy
from benchmarks.chaos.figure import measure_chaos
from benchmarks.chaos.storm_figure import measure_storms
from benchmarks.cluster_figure import measure_cluster
from benchmarks.command_figures import measure_commands, measure_planning, measure_results
from benchmarks.core_overhead_figure import measure_core
from benchmarks.cuda_figure import measure_cuda, measure_steps
from benchmarks.evidence import measure_designs, measure_evidence
from benchmarks.judged import measure_judged
from benchmarks.report import Figure
from benchmarks.sample import OnSample
from benchmarks.scale_figure import measure_scale
from benchmarks.store_figure import measure_store
from benchmarks.streams import measure_streams
from benchmarks.task4 import measure_task4
from benchmarks.training_figures import (
    measure_convolutions,
    measure_data,
    measure_estimate,
    measure_overhead,
    measure_variant,
)
from benchmarks.workload import Request

# `accuracy` needs real images, so that it is measured only where --real names them.
FIGURES: dict[str, Callable[[Request, OnSample], Figure]] = {
    "commands": measure_commands,
    "planning": measure_planning,
    "results": measure_results,
    "store": measure_store,
    "core": measure_core,
    "chaos": measure_chaos,
    "storms": measure_storms,
    "scale": measure_scale,
    "cluster": measure_cluster,
    "evidence": measure_evidence,
    "designs": measure_designs,
    "streams": measure_streams,
    "judged": measure_judged,
    "baseline": partial(measure_variant, variant="baseline"),
    "overhead": measure_overhead,
    "estimate": measure_estimate,
    "data": measure_data,
    "convolutions": measure_convolutions,
    "batch-norm": partial(measure_variant, variant="batch-norm"),
    "model-1": partial(measure_variant, variant="model-1"),
    "task4": measure_task4,
    "accuracy": measure_accuracy,
}
# These are of a CUDA device, and the default there.
CUDA_FIGURES: dict[str, Callable[[Request, OnSample], Figure]] = {"cuda-steps": measure_steps, "cuda": measure_cuda}
