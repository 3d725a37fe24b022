"""What can be done with a study, from Python: the command line and notebooks are its callers.

    ablate     train what a study needs; which changes helped?        `ablation`, and `greedy` for its path
    search     combinations by Optuna                                 `searching`
    confirm    the winner on fresh seeds, once                        `confirmation`
    confirm_line  a line's champion on fresh seeds, once              `line_confirmation`
    compare    which effects differ between two study runs?           `comparing`
    gate       did this code get worse than a commit's?               `gating`
    study_range  a range of commits, or a loop's log, as a study      `studying`
    prune      the fewest changes that are no worse, as a branch      `pruning`
    judge      is this candidate better than the champion?            `judging`
    lineage    a line of champions: proven, unproven, refuted         `lineages`
    try_study  one short cell, looked at closely                      `trying`
    plan       what a request means: a plan, its store, its workers   `work`
    Watch      who is told what happens meanwhile                     `training`

Nothing here prints. Importing this package imports nothing else: each name is looked up when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api.ablation import ablate
    from harness.api.comparing import compare
    from harness.api.confirmation import confirm
    from harness.api.gating import gate
    from harness.api.judging import judge
    from harness.api.line_confirmation import confirm_line
    from harness.api.lineages import lineage
    from harness.api.pruning import prune
    from harness.api.searching import search
    from harness.api.studying import study_range
    from harness.api.training import Watch
    from harness.api.trying import try_study
    from harness.api.work import plan_work as plan

__all__ = [
    "Watch",
    "ablate",
    "compare",
    "confirm",
    "confirm_line",
    "gate",
    "judge",
    "lineage",
    "plan",
    "prune",
    "search",
    "study_range",
    "try_study",
]

# Public name -> (module, attribute).
_HOMES = {
    "Watch": ("training", "Watch"),
    "ablate": ("ablation", "ablate"),
    "compare": ("comparing", "compare"),
    "confirm": ("confirmation", "confirm"),
    "confirm_line": ("line_confirmation", "confirm_line"),
    "gate": ("gating", "gate"),
    "judge": ("judging", "judge"),
    "lineage": ("lineages", "lineage"),
    "plan": ("work", "plan_work"),
    "prune": ("pruning", "prune"),
    "search": ("searching", "search"),
    "study_range": ("studying", "study_range"),
    "try_study": ("trying", "try_study"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness.api' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"harness.api.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
