"""One attempt at a cell: what its result says of what training reported, and what is said when it reported badly."""

import enum
import errno
import math

import fakes
import pytest
import torch
from fakes import FINAL, LOGGED, cells_for

from harness.errors import OutOfMemoryError, StoreError
from harness.execution.here import run_one
from harness.store.cells import Cells
from harness.trainers.run import RunError


def attempt(tmp_path, training):
    """The result of a cell that is trained by this function, and its folder's owner."""

    class Planted(fakes.FakeTrainer):
        def train(self, run):
            training(run)

    cells, (cell,) = Cells(tmp_path), cells_for(1, Planted())
    outcome = run_one(cell, cells, device="cpu", provenance={"commit": "c0ffee"})
    assert outcome == cells.result(cell.key), "told as it is in the store"
    return cells.result(cell.key)


def logged(run, *accuracies):
    for step, accuracy in enumerate(accuracies, start=1):
        run.log(step, epoch=step / 2, **{**LOGGED, "val/accuracy": accuracy})


def test_metrics_that_were_logged_stand_at_the_first_of_the_best_steps(tmp_path):
    def training(run):
        logged(run, 0.4, math.nan, 0.7, 0.7, 0.6)
        run.finish(**{"test/accuracy": 0.65})

    result = attempt(tmp_path, training)

    assert result.metrics == {**LOGGED, "val/accuracy": 0.7, "test/accuracy": 0.65}
    assert result.facts == {"best_step": 3, "best_epoch": 1.5}
    assert (result.num_steps, result.commit, result.status) == (5, "c0ffee", "finished")


def test_what_finish_gives_wins_over_what_was_logged_and_metrics_stand_in_the_order_of_the_study(tmp_path):
    def training(run):
        logged(run, 0.4)
        run.finish(**{"test/accuracy": 0.65, "train/loss": 0.1})

    result = attempt(tmp_path, training)

    assert list(result.metrics) == [name for name in FINAL if name != "test/loss"]
    assert result.metrics["train/loss"] == 0.1


def test_what_is_noted_is_of_pythons_own_kinds(tmp_path):
    """What reads a result does not know an enumeration of the user's: it could not even be sent to it."""

    class Mode(enum.IntEnum):
        FAST = 3

    class Name(enum.StrEnum):
        LONG = "long"

    kinds = {}

    def training(run):
        run.note(mode=Mode.FAST, name=Name.LONG, is_new=True)
        run.log(Mode.FAST, **LOGGED)
        kinds.update({name: type(it) for name, it in run.facts.items()}, steps=type(run.num_steps))
        run.finish(**FINAL)

    result = attempt(tmp_path, training)

    assert kinds == {"mode": int, "name": str, "is_new": bool, "steps": int}
    assert [result.facts[name] for name in ("mode", "name", "is_new")] == [3, "long", True]


def test_facts_are_kept_and_those_of_the_envelope_go_there(tmp_path):
    def training(run):
        run.note(parameters=10, device="cuda: H", versions="mine 1", peak_memory_bytes=7)
        run.finish(**FINAL)

    result = attempt(tmp_path, training)

    assert result.facts == {"parameters": 10}
    assert (result.device, result.versions, result.peak_memory_bytes) == ("cuda: H", "mine 1", 7)


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (lambda run: None, r"returned without calling run.finish"),
        (lambda run: run.finish(**{"val/accuracy": 0.5}), "without test/accuracy, which the study reports"),
        (lambda run: run.finish(**{"test/accuracy": 0.5}), "never reported val/accuracy, by which the study selects"),
        (lambda run: run.finish(**{**FINAL, "test/acc": 0.5}), "unknown metric 'test/acc'; this study declares"),
        (lambda run: run.finish(**{**FINAL, "test/loss": "low"}), "test/loss must be a number, not 'low'"),
        (lambda run: (run.finish(**FINAL), run.finish(**FINAL)), "run.finish was called twice"),
        (lambda run: (run.log(2, **LOGGED), run.log(2, **LOGGED)), "step 2 after step 2; steps must grow"),
        (lambda run: run.log(True, **LOGGED), "step must be a whole number from 0, not True"),
        (lambda run: run.log(1), "no metric was given"),
        (lambda run: run.note(shape=(3, 4)), r"shape must be a text, a number or a truth value, not \(3, 4\)"),
        (lambda run: (run.note(seconds=3.0), run.finish(**FINAL)), "run.note: seconds: every result has that already"),
        (lambda run: (run.note(variant="x"), run.finish(**FINAL)), "run.note: variant: every result has that"),
    ],
)
def test_training_that_reports_badly_is_a_failed_cell_that_says_which_call_and_why(tmp_path, training, reason):
    result = attempt(tmp_path, training)

    assert result.status == "failed"
    assert result.metrics == {}
    with pytest.raises(RunError, match=reason):
        raise RunError(result.reason)


def test_nothing_written_into_a_checkpoints_path_is_said(tmp_path):
    def training(run):
        with run.saving():
            pass

    assert "nothing was written to the path" in attempt(tmp_path, training).reason


def test_torch_saves_to_the_path_of_a_checkpoint(tmp_path):
    def training(run):
        with run.saving() as path:
            torch.save({"epoch": 1}, path)
        run.finish(**FINAL)

    assert attempt(tmp_path, training).status == "finished"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), StoreError("x: cannot be written")])
def test_a_full_disk_is_no_failure_of_the_cell_that_met_it(tmp_path, error):
    def training(run):
        run.log(1, **LOGGED)
        raise error

    with pytest.raises(StoreError, match="cannot be written"):
        attempt(tmp_path, training)
    (key,) = Cells(tmp_path).all_keys()
    assert Cells(tmp_path).result(key) is None


@pytest.mark.parametrize(("name", "said"), [("val/accuracy", "val/accuracy"), ("test/accuracy", "test/accuracy")])
def test_a_number_that_is_not_finite_where_it_counts_is_divergence(tmp_path, name, said):
    result = attempt(tmp_path, lambda run: run.finish(**{**FINAL, name: math.nan}))

    assert (result.status, result.reason) == ("diverged", f"{said} not finite at the end")


def test_a_number_that_is_not_finite_elsewhere_is_left_out(tmp_path):
    result = attempt(tmp_path, lambda run: run.finish(**{**FINAL, "train/loss": math.inf}))

    assert result.is_finished
    assert set(FINAL) - set(result.metrics) == {"train/loss"}


def test_divergence_and_a_lack_of_memory_are_outcomes_of_their_own(tmp_path):
    def without_memory(run):
        raise OutOfMemoryError("10 GB are too few")

    (cell,), cells = cells_for(1, fakes.Diverging()), Cells(tmp_path / "diverging")
    run_one(cell, cells, device="cpu", provenance={})

    assert (cells.result(cell.key).status, cells.result(cell.key).reason) == (
        "diverged",
        "loss is not finite at epoch 4",
    )
    assert attempt(tmp_path, without_memory).status == "out-of-memory"


def test_a_training_that_died_behind_its_last_checkpoint_ends_with_as_many_steps(tmp_path):
    class Death(BaseException):
        pass

    lives = []

    class Dying(fakes.FakeTrainer):
        def train(self, run):
            lives.append(run.saved())
            if not run.saved():
                logged(run, 0.4, 0.6)
                with run.saving() as path:
                    path.touch()
                raise Death
            run.finish(**{"test/accuracy": 0.65})

    cells, (cell,) = Cells(tmp_path), cells_for(1, Dying())
    with pytest.raises(Death):
        run_one(cell, cells, device="cpu", provenance={})
    result = run_one(cell, cells, device="cpu", provenance={})

    assert len(lives) == 2
    assert (result.num_steps, result.metrics["val/accuracy"]) == (2, 0.6)


def test_streams_of_different_purposes_and_seeds_have_different_seeds_and_repeat(tmp_path):
    seen = []

    def training(run):
        seen.append([run.seed_for("order", 1), run.seed_for("order", 2), run.seed_for("order1"), run.seed_for()])
        run.finish(**FINAL)

    attempt(tmp_path / "a", training)
    attempt(tmp_path / "b", training)

    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 4
    assert all(0 <= it < 2**63 for it in seen[0])
