"""What the Optuna dashboard shows of a search besides its trials: a note with the answer, and our figures.

Names of parameters, metric and user attributes are set where trials are made (`storage.py`, `trials.py`, `loop.py`).
"""

import re
from collections.abc import Callable

import optuna

from harness.errors import ResultsError
from harness.search.answer import Answer
from harness.search.sentences import caption, headings, rows, sentences

IMPORTANCE = """\
**The importance panel may say something else.** It shows PED-ANOVA, which asks what tells the best trials from the \
rest; on combinations of a few choices it can rank a change far too low. The numbers here are effects with intervals, \
and fANOVA where it says so."""

ABOUT = """\
A trial is one combination of changes, a parameter is a change (true or false) or a group of exclusive changes; the \
value is the mean {metric} over the seeds. `why` says where a trial comes from, `cells` and `mlflow runs` \
hold a key and a run for each seed; a run in MLflow carries the tags `harness.search` and `harness.trial`."""


def publish(study: optuna.Study, answer: Answer) -> None:
    """Writes note and figures into the study, over those of an earlier call."""
    from optuna_dashboard import save_note, save_plotly_graph_object

    from harness.report import figures

    save_note(study, note(answer))
    drawings: dict[str, Callable[[], object]] = {
        "over-the-baseline": lambda: figures.forest(answer.table, "add-one", metric=answer.metric.name),
        "alone-and-in-company": lambda: figures.add_one_against_leave_one_out(answer.table, metric=answer.metric.name),
        "interactions": lambda: figures.interaction_heatmap(answer.table, metric=answer.metric.name),
    }
    for name, draw in drawings.items():
        try:
            save_plotly_graph_object(study, draw(), graph_object_id=name)
        except ResultsError:  # the trials do not hold what this figure shows
            continue


def note(answer: Answer) -> str:
    """Markdown."""
    titles = headings(answer)
    lines = [
        f"## {answer.plan.study.title}",
        "",
        ABOUT.format(metric=answer.metric.words),
        "",
        *(f"* {_escaped(it)}" for it in sentences(answer)),
        "",
    ]
    lines += [f"{caption(answer)}, with 95% t intervals; exploratory.", ""]
    lines += [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    lines += [f"| {' | '.join(map(_escaped, row))} |" for row in rows(answer)]
    lines += ["", IMPORTANCE, "", *(f"* {_escaped(it)}" for it in answer.notes)]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Brackets are links in Markdown, and bars are cells."""
    return re.sub(r"([\[\]|*_])", r"\\\1", text)
