"""`study`: a range of commits, or the log of a loop, as a study. Which of them helped?"""

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.api.work import plan_work
from harness.errors import OutputError, StudyError
from harness.execution.provenance import command_line
from harness.files.atomic import write_new
from harness.files.scratch import scratch
from harness.plan.budget import Option, options
from harness.store.tried import read_tried
from harness.study.compose import NAMED, Composed
from harness.study.history import History, grouping, in_words, read_history
from harness.study.load import load_study, read_composed
from harness.study.loop_log import Row, claimed_gains, read_log
from harness.study.yaml_file import write_yaml
from harness.trainers.git import Logged, Repository
from harness.trainers.registry import trainer_from_study
from harness.trainers.user import UserTrainer

ALL = "head"  # the combination of all changes, or of those that a loop kept
IN_ORDER = "commits"  # the path of these
BUDGETED = ("screening", f"leave-one-out:{ALL}")
SMALLER = "screening:plain"  # where the budget has no room for the other: half as many variants, and a worse test
_DURATION = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+)m)?")


@dataclass(frozen=True)
class Studied:
    """A study that was written.

    Attributes:
        path: of its file. base, tip: whole hashes of the commits that the range begins after and ends with.
        asked: the range, or the log, as it was asked for.
        claims: of a loop's log, by change: how much better it looked to the loop, in the selecting metric as it is
            logged; positive where better.
        is_main_line: the changes are steps of it, so that their path is what history was.
        budget: what each design does within the budget, the one that was chosen first; empty where none was said.
    """

    path: Path
    base: str
    tip: str
    history: History
    asked: str
    claims: Mapping[str, float] = field(default_factory=dict)
    budget: tuple[Option, ...] = ()
    is_main_line: bool = False


def study_range(
    commits: str = "",
    study: str | Path = "",
    *,
    output: str | Path = "commits.yaml",
    by: str = "commit",
    first_parent: bool = False,
    log: str | Path | None = None,
    budget: str | None = None,
    store: str | Path = "mlruns",
) -> Studied:
    """Writes a study whose baseline is the code of the range's beginning and whose changes are its commits.

    Its design leaves each change out of all of them; `path` adds them one by one in their order, which is the design
    where the changes are steps of the main line. Of a loop's log the changes are all proposals, and `head` and the path
    hold those that it kept.

    Args:
        commits: `BASE..TIP`; HEAD where no TIP stands. Of a log, where it began, if that is not its first row.
        study: a study of one's own training, which the new one extends: metrics, settings and profiles are its own;
            its changes are dropped.
        by: what one change is; see `grouping`.
        first_parent: the commits are the steps of the main line, of which a merge is one, with all that it brought: the
            path is then the code of history itself, whatever merges resolved by hand.
        log: a table that a loop wrote, such as results.tsv: commit, a number, status, description.
        budget: cells (`800`) or time (`3h`, `1d12h`, `90m`): the design and the number of seeds that find the smallest
            effects with it.
        store: by whose cells a budget of time is measured.

    Raises:
        StudyError: no such range, log or study, or no commit of it can be a change; a budget that nothing fits into.
        OutputError: the file is there with something else in it, or cannot be written.
    """
    output = Path(output)
    key, is_time = grouping(by), _is_time(budget) if budget else False
    loaded, composed = load_study(study), read_composed(study)
    if not isinstance(loaded.trainer, UserTrainer) or loaded.trainer.pinned:
        raise StudyError(
            f"{study}: has no code whose commits could be changes; name a study with a function or a command of your "
            "own under `trainer:`, not pinned."
        )
    repository = loaded.trainer.repository
    rows = read_log(Path(log)) if log else ()
    if log and first_parent:
        raise StudyError("--first-parent: a log names its commits itself; it goes with a range alone.")
    base, tip, logged, notes = _logged(commits, rows, repository) if log else _ranged(commits, repository, first_parent)
    trainer = trainer_from_study({**composed.tree, "commit": base}, composed.root)
    assert isinstance(trainer, UserTrainer)
    history = read_history(trainer, logged, tip, by=key)
    history = replace(history, notes=(*notes, *history.notes))
    asked = str(log) if log else commits
    if not history.changes:
        said = "\n".join(["", *(f"  {line}" for line in in_words(history.left_out))])
        raise StudyError(f"{asked}: no commit can be a change, and nothing was written.{said}")
    claims = _claims(history, rows, loaded.trainer.metrics.selecting.sign)
    found = Studied(output, base, tip, history, asked, claims, is_main_line=first_parent)
    tree = _tree(found, rows, composed, loaded.trainer.metrics.selecting.say_difference)
    if budget:
        cells = _cells_in(budget, composed, store) if is_time else int(budget)
        found = replace(found, budget=_options(found, tree, cells, budget))
        tree |= _budgeted(found.budget[0], composed.tree)
    _write(output, _text(found, tree))
    return found


def _write(output: Path, text: str) -> None:
    """What is there already and says the same is what this request wrote, before it was killed perhaps."""
    try:
        write_new(output, text)
    except FileExistsError:
        with contextlib.suppress(OSError, ValueError):
            if output.read_text(encoding="utf-8") == text:
                return
        raise OutputError(
            f"{output}: is there already, and nothing was written; --output names another file."
        ) from None
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror}).") from None


_Range = tuple[str, str, Sequence[Logged], Sequence[str]]  # base, tip, commits in order, what else is to be said


def _ranged(commits: str, repository: Repository, first_parent: bool) -> _Range:
    first, dots, last = commits.partition("..")
    if not dots or not first or last.startswith("."):
        raise StudyError(f"{commits!r}: expected BASE..TIP, such as v1.0..HEAD.")
    base, tip = repository.commit(first), repository.commit(last or "HEAD")
    fork = repository.fork(base, tip)
    if fork != base:
        raise StudyError(f"{commits}: {last or 'HEAD'} does not stand on {first}; their histories part at {fork[:10]}.")
    if base == tip:
        raise StudyError(f"{commits}: holds no commit.")
    if not first_parent:
        return base, tip, repository.history(base, tip), ()
    steps = [_as_step(it, repository) for it in repository.main_line(base, tip)]
    return base, tip, steps, ()


def _as_step(it: Logged, repository: Repository) -> Logged:
    """A step of the main line by its first parent alone; a merge by the first commit that it brought."""
    if len(it.parents) < 2:
        return it
    brought = [other for other in repository.history(it.parents[0], it.commit) if len(other.parents) < 2]
    first, more = (brought[0].subject, f", and {len(brought) - 1} more" if brought[1:] else "") if brought else ("", "")
    said = f"{first}{more} ({it.subject})" if brought else it.subject
    return Logged(it.commit, it.parents[:1], f"{said}\n\n{it.message}")


def _logged(commits: str, rows: Sequence[Row], repository: Repository) -> _Range:
    """The commits of a log, and those that they stand on, each after its parents, in the order of the log."""
    known: dict[str, str] = {}
    lost = []
    for row in rows:
        try:
            known.setdefault(row.commit, repository.commit(row.commit))
        except StudyError:
            lost.append(f"{row.commit or '(no commit)'} {row.description}".strip())
    if not known:
        raise StudyError(f"no commit of the log is one of the repository {repository.top}.")
    base = repository.commit(commits.partition("..")[0]) if commits else known[next(iter(known))]
    seen: dict[str, Logged] = {}
    for commit in dict.fromkeys(known.values()):
        seen |= {it.commit: it for it in repository.history(base, commit) if it.commit not in seen}
    kept = [known[row.commit] for row in rows if row.is_kept and known.get(row.commit) in seen]
    notes = [
        f"{len(lost)} rows of the log name no commit of the repository any more: {'; '.join(lost[:3])}"
        + ("; ..." if len(lost) > 3 else ".")
    ]
    return base, kept[-1] if kept else base, list(seen.values()), notes if lost else ()


def _claims(history: History, rows: Sequence[Row], sign: float) -> dict[str, float]:
    """The gain that the log shows for each change that has one; of several commits, the sum of what was kept."""
    gains = claimed_gains(rows, sign)
    found = {}
    for change in history.changes:
        of_it = [gain for text, gain in gains.items() if any(commit.startswith(text) for commit in change.commits)]
        if of_it:
            found[change.name] = sum(of_it)
    return found


def _options(found: Studied, tree: Mapping[str, Any], num_cells: int, budget: str) -> tuple[Option, ...]:
    """What designs do with so many cells. Raises StudyError where none has room for a seed."""
    extended = (found.path.parent / tree["extends"]).resolve()
    with scratch() as folder:
        draft = folder / "draft.yaml"
        draft.write_text(_text(found, {**tree, "extends": str(extended)}), encoding="utf-8")
        made = load_study(draft)
    fitting = options(made, num_cells, [it for it in BUDGETED if found.history.kept or ALL not in it])
    if not any(it.seeds for it in fitting):
        fitting = options(made, num_cells, [SMALLER]) + fitting
    if not fitting or not fitting[0].seeds:
        least = min((it.num_variants for it in fitting), default=0)
        raise StudyError(f"--budget {budget}: has room for {num_cells} cells, and the smallest design takes {least}.")
    return tuple(fitting)


def _budgeted(chosen: Option, below: Mapping[str, Any]) -> dict[str, Any]:
    """What the study's file says of design and seeds."""
    standard = {**(below.get("profiles") or {}).get("standard", {}), "seeds": chosen.seeds}
    return {"designs": [chosen.design], "profiles": {"standard": standard}}


def _is_time(budget: str) -> bool:
    """Whether a budget is one of time. Raises StudyError where it is none of either."""
    if budget.isdecimal() and int(budget) > 0:
        return False
    if _DURATION.fullmatch(budget):
        return True
    raise StudyError(f"--budget {budget!r}: expected cells, such as 800, or time, such as 3h or 1d12h.")


def _cells_in(budget: str, composed: Composed, store: str | Path) -> int:
    """How many cells this machine trains in so much time, by what was measured of the study's baseline."""
    found = _DURATION.fullmatch(budget)
    assert found
    seconds = sum(float(it or 0) * each for it, each in zip(found.groups(), (86_400, 3_600, 60), strict=True))
    study = load_study(composed.path)
    profile = "standard" if "standard" in study.profiles else next(iter(study.profiles))
    work = plan_work(study, profile=profile, seeds=1, store=store, device="cpu", designs=("add-one",))
    tried = read_tried(work.cells.root, study.name, work.plan.fingerprints)
    ended = [it for cell in work.plan.cells if (it := work.cells.result(cell.key)) and it.is_finished]
    measured = [it.seconds for it in ended] or ([tried.seconds] if tried else [])
    if not measured:
        raise StudyError(
            f"--budget {budget}: how long a cell takes was not measured here yet. `harness try {composed.path}` "
            "measures it; or give a number of cells."
        )
    return int(seconds * len(work.devices) / max(sum(measured) / len(measured), 1e-3))


def _tree(found: Studied, rows: Sequence[Row], extended: Composed, say: Callable[[float], str]) -> dict[str, Any]:
    """The study's file. say: a difference of the selecting metric in words."""
    changes, below = found.history.changes, extended.tree
    names, kept = [it.name for it in changes], list(found.history.kept)
    entries = [it for key in NAMED for it in below.get(key, [])]
    dropped = [it["name"] if isinstance(it, dict) else it for it in entries] + list(below.get("paths", {}))
    summary = "all of them" if len(kept) == len(names) else "what was kept"
    design = f"path:{IN_ORDER}" if found.is_main_line else f"leave-one-out:{ALL}"
    return {
        "title": f"Commits {found.asked} ({found.base[:10]}..{found.tip[:10]})",
        "extends": os.path.relpath(extended.path.resolve(), found.path.parent.resolve()),
        "drop": [it for it in dropped if it not in (*names, ALL, IN_ORDER)],
        "commit": found.base,
        "changes": [
            {"name": it.name, "summary": it.summary, "commit": _one_or_all(it.commits)}
            | ({"needs": _one_or_all(it.needs)} if it.needs else {})
            | ({"source": _claimed(found, it.name, kept, say)} if rows else {})
            for it in changes
        ],
        "combinations": [{"name": ALL, "summary": summary, "changes": kept}] if kept else [],
        "paths": {IN_ORDER: kept} if kept else {},
        "designs": [design] if kept else ["add-one"],
    }


def _claimed(found: Studied, name: str, kept: Sequence[str], say: Callable[[float], str]) -> str:
    """What the loop made of a change; empty texts are left out by whoever writes."""
    status = "kept" if name in kept else "discarded"
    if name not in found.claims:
        return f"{status} by the loop"
    gain = found.claims[name]
    return f"{status} by the loop: {say(abs(gain)).lstrip('+')} {'better' if gain > 0 else 'worse'} on its one run"


def _text(found: Studied, tree: Mapping[str, Any]) -> str:
    head = [f"Written by `{command_line()}`.", *found.history.notes]
    head += [f"Budget: {found.budget[0]}."] if found.budget else []
    if found.history.left_out:
        head += ["Left out:", *(f"  {line}" for line in in_words(found.history.left_out))]
    comments = "".join(f"# {line if line.isprintable() else ascii(line)}\n" for line in head)
    return comments + write_yaml({key: value for key, value in tree.items() if value})


def _one_or_all(names: Sequence[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)
