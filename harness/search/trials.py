"""The trials of a search, as a queue that several processes share: asked for one at a time, told, retried, given back.

A trial is a combination of changes; in Optuna, one choice a parameter. What to try next is decided under the exclusive
lock, in this order: trials that wait (those of the beginning, and those of workers that died); a new combination from
the sampler, until there are as many as asked for; in the end, the best combination without each of its changes. So no
combination is suggested twice, by however many processes, and the number of trials is the total over all of them.

Training does not happen here (`loop.py`), nor does the choice of a sampler's suggestion (`sampling.py`).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness.search.choices import Sampler
from harness.search.locks import Locks
from harness.search.sampling import distributions, make_sampler
from harness.search.space import Space
from harness.study.designs.comparisons import Changes

# User attributes: what the dashboard shows of a trial, and what processes tell each other about it.
WHY, WORKER, RETRY_OF, FAILED, REFUSED = "why", "worker", "retry of trial", "failed", "refused"
SAMPLED, LEFT_OUT = "sampled", "the best without"  # how a `WHY` begins


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial to be worked on.

    Attributes:
        is_compared: its effect is part of the answer, so that it must not be pruned.
    """

    trial: optuna.Trial
    changes: Changes
    is_compared: bool


class Trials:
    """The trials of one Optuna study, for one worker.

    Args:
        num_trials: different combinations to try in all, by all workers, in this call and earlier ones. Those that
            leave one change out of the best come on top; what waits already is worked on in any case.
    """

    def __init__(self, study: optuna.Study, space: Space, locks: Locks, *, num_trials: int, sampler: Sampler) -> None:
        self._study, self._space, self._locks = study, space, locks
        self._num_trials, self._sampler = num_trials, sampler

    def ask(self) -> Asked | Literal["wait", "over"]:
        """The next trial; `wait` while there are only those that others work on (one may fall to us); `over` when
        there is nothing left to do."""
        while True:
            with self._locks.exclusive():
                asked = self._ask(self._enqueue_first(self._retry_dead(self._all())))
            if asked is not None:
                return asked

    def tell(self, asked: Asked, value: float) -> None:
        self._study.tell(asked.trial, value, skip_if_finished=True)

    def prune(self, asked: Asked) -> None:
        self._study.tell(asked.trial, state=TrialState.PRUNED, skip_if_finished=True)

    def fail(self, asked: Asked, reason: str) -> None:
        """For a combination without a value because a cell of it diverged or failed: an outcome, not to be retried."""
        asked.trial.set_user_attr(FAILED, reason)
        self._study.tell(asked.trial, state=TrialState.FAIL, skip_if_finished=True)

    def give_back(self, asked: Asked) -> None:
        """Puts a trial that this worker leaves unfinished back into the queue."""
        with self._locks.exclusive():
            trial = next(trial for trial in self._all() if trial.number == asked.trial.number)
            if not trial.state.is_finished():
                self._requeue(trial)

    def retry_failed(self, forget: Callable[[Changes], None]) -> None:
        """Puts every combination that failed back into the queue.

        Args:
            forget: gets each before anyone can take it up again.
        """
        with self._locks.exclusive():
            latest = {combination(trial, self._space): trial for trial in self._all()}
            failed = {changes: trial for changes, trial in latest.items() if changes and FAILED in trial.user_attrs}
            for changes, trial in failed.items():
                forget(changes)
                self._enqueue(changes, trial.user_attrs[WHY], retry_of=trial.number)

    def _ask(self, trials: Sequence[FrozenTrial]) -> Asked | Literal["wait", "over"] | None:
        """None where what came up is no trial to work on."""
        why = "enqueued by hand"  # unless the trial says otherwise
        if not any(trial.state == TrialState.WAITING for trial in trials):
            sampler = self._sampler_for(trials) if self._num_counted(trials) < self._num_trials else None
            if sampler:
                self._study.sampler, why = sampler, f"{SAMPLED} ({self._sampler})"
            elif any(trial.state == TrialState.RUNNING for trial in trials):
                return "wait"
            elif not self._enqueue_left_out(trials):
                return "over"
        try:
            trial = self._study.ask(fixed_distributions=distributions(self._space))
        except ValueError:  # a choice that is none, enqueued by hand; it runs without a worker, and is cleared away
            return None
        return self._taken(trial, why)

    def _taken(self, trial: optuna.Trial, why: str) -> Asked | None:
        why = trial.user_attrs.get(WHY, why)
        trial.set_user_attr(WHY, why)
        trial.set_user_attr(WORKER, self._locks.me)
        changes = self._space.changes_of(trial.params)
        assert changes is not None, "every parameter was suggested from the choices of the space"
        refused = self._space.why_not(changes)
        if refused:
            trial.set_user_attr(REFUSED, refused)
            self._study.tell(trial, state=TrialState.PRUNED)
            return None
        return Asked(trial, changes, is_compared=not why.startswith(SAMPLED))

    def _enqueue_first(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Gives the trials as they are afterwards."""
        settled, known = self._settled(trials), known_combinations(trials, self._space)
        room = self._num_trials - self._num_counted(trials)
        missing = {changes: why for changes, why in self._space.first().items() if changes not in settled}
        too_many = [changes for changes in missing if changes not in known][max(room, 0) :]
        for changes, why in missing.items():
            if changes not in too_many:
                self._enqueue(changes, why)
        return self._all() if missing else trials

    def _enqueue_left_out(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether there is any of them that was not tried yet."""
        found = best_trial(trials, self._space)
        best = (combination(found, self._space) if found else None) or ()
        known = self._settled(trials)
        rests = {change: tuple(other for other in best if other != change) for change in best}
        missing = {it: rest for it, rest in rests.items() if rest not in known and not self._space.why_not(rest)}
        for change, rest in missing.items():
            self._enqueue(rest, f"{LEFT_OUT} {change}")
        return bool(missing)

    def _sampler_for(self, trials: Sequence[FrozenTrial]) -> optuna.samplers.BaseSampler | None:
        """A function of the trials so far: whoever asks gets the same suggestion."""
        seed = hashlib.sha256(f"{self._study.study_name} {len(trials)}".encode()).digest()
        known = known_combinations(trials, self._space)
        return make_sampler(self._sampler, self._space, known, seed=int.from_bytes(seed[:4]))

    def _settled(self, trials: Iterable[FrozenTrial]) -> set[Changes]:
        """The combinations that need no further trial for the answer: a pruned one does, if the answer compares it."""
        return known_combinations((it for it in trials if it.state != TrialState.PRUNED), self._space)

    def _num_counted(self, trials: Iterable[FrozenTrial]) -> int:
        counted = [trial for trial in trials if not trial.user_attrs.get(WHY, "").startswith(LEFT_OUT)]
        return len(known_combinations(counted, self._space))

    def _retry_dead(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Puts trials of workers that are no more back into the queue; gives the trials as they are afterwards. A trial
        that runs without a worker is one of them: its worker died while it held the lock that we hold now."""
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        dead = [trial for trial in running if not self._locks.is_alive(trial.user_attrs.get(WORKER, "nobody"))]
        for trial in dead:
            self._requeue(trial)
        return self._all() if dead else trials

    def _requeue(self, trial: FrozenTrial) -> None:
        """The copy first: a death in between leaves a trial that runs and has a copy, and the next one sees that."""
        changes = combination(trial, self._space)
        has_copy = any(other.user_attrs.get(RETRY_OF) == trial.number for other in self._all())
        if changes is not None and not has_copy:
            self._enqueue(changes, trial.user_attrs.get(WHY, SAMPLED), retry_of=trial.number)
        self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _enqueue(self, changes: Changes, why: str, *, retry_of: int | None = None) -> None:
        attributes: dict[str, str | int] = {WHY: why} | ({} if retry_of is None else {RETRY_OF: retry_of})
        self._study.enqueue_trial(self._space.params_of(changes), user_attrs=attributes)

    def _all(self) -> list[FrozenTrial]:
        return list(self._study.get_trials(deepcopy=False))


def combination(trial: FrozenTrial, space: Space) -> Changes | None:
    """The changes that a trial stands for; None where it is none of this space's."""
    return space.changes_of(trial.params or trial.system_attrs.get("fixed_params", {}))


def known_combinations(trials: Iterable[FrozenTrial], space: Space) -> set[Changes]:
    """Those that were tried, are being tried, or wait; not those that were given up without an outcome, nor those that
    cannot be."""
    has_outcome = [it for it in trials if it.state != TrialState.FAIL or FAILED in it.user_attrs]
    found = {changes for trial in has_outcome if (changes := combination(trial, space)) is not None}
    return {changes for changes in found if not space.why_not(changes)}


def best_trial(trials: Iterable[FrozenTrial], space: Space) -> FrozenTrial | None:
    """The trial with the best value, the first of equals; None before any has one."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    ours = [trial for trial in complete if combination(trial, space) is not None]
    return max(ours, key=lambda trial: (space.metric.sign * (trial.value or 0.0), -trial.number), default=None)
