"""Harness: which of my changes helped? Ablation studies with paired seeds, intervals and a corrected test.

The public names of the package; everything else may change between versions. Importing it imports no library: each
name is looked up when it is first used.

    Run             what a training of one's own gets: settings and seed in, metrics and checkpoints out
    current_run     the run that this code trains, in a function or a script
    ablate          trains what a study needs; `.effects` says which changes helped
    tune            compares the variants, each at its own best nuisance settings
    confirm         the winner against the baseline, once, on seeds that nothing used before
    load_study      a declared study, by name or path
    load_results    every cell of a study run, a row each
    load_curves     every validation of a study run's cells
    effects         what each change brings, paired by seed, corrected as one family
    figures         the figures of a report, for a notebook
    read_csv        reads an exported table back, types included
    HarnessError    base of every error that a message lets you fix
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api.ablation import ablate
    from harness.api.confirmation import confirm
    from harness.api.tuning import tune
    from harness.errors import HarnessError
    from harness.report import figures
    from harness.report.formats import read_csv
    from harness.stats import effects
    from harness.store.load import load_curves, load_results
    from harness.study.load import load_study
    from harness.trainers.current import current_run
    from harness.trainers.run import Run

__all__ = [
    "HarnessError",
    "Run",
    "ablate",
    "confirm",
    "current_run",
    "effects",
    "figures",
    "load_curves",
    "load_results",
    "load_study",
    "read_csv",
    "tune",
]

# Public name -> (module, attribute); without an attribute it is the module itself.
_HOMES = {
    "HarnessError": ("harness.errors", "HarnessError"),
    "Run": ("harness.trainers.run", "Run"),
    "ablate": ("harness.api.ablation", "ablate"),
    "confirm": ("harness.api.confirmation", "confirm"),
    "tune": ("harness.api.tuning", "tune"),
    "current_run": ("harness.trainers.current", "current_run"),
    "effects": ("harness.stats", "effects"),
    "figures": ("harness.report.figures", ""),
    "load_curves": ("harness.store.load", "load_curves"),
    "load_results": ("harness.store.load", "load_results"),
    "load_study": ("harness.study.load", "load_study"),
    "read_csv": ("harness.report.formats", "read_csv"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    home = importlib.import_module(module)
    return getattr(home, attribute) if attribute else home


def __dir__() -> list[str]:
    return sorted(__all__)
