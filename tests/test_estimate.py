"""Estimates: scheduling by the longest first, and scaling from what was measured."""

import time

import fakes
import pytest
from fakes import METRICS, cells_for
from own import write_study

import harness.trainers.images.cost
from harness.api.probing import probe
from harness.api.trying import try_study
from harness.api.work import plan_work, unfinished
from harness.cli.progress import RunProgress, duration_range
from harness.cli.screen import Screen
from harness.plan.estimate import START_SECONDS, UNKNOWN_SECONDS, Estimate, Sample, estimate, makespan
from harness.store.cells import Cells
from harness.store.tried import read_tried
from harness.trainers.images.cost import modelled_seconds
from harness.trainers.images.settings import with_overrides
from harness.trainers.images.trainer import ImageTrainer

IMAGES = ImageTrainer()  # whose model of costs scales what was measured


def test_the_longest_cells_go_first():
    # By hand: 2 workers; 5 | 4 3 -> 5+2=7 | 4+3=7.
    assert makespan([2, 3, 4, 5], workers=2) == 7
    assert makespan([], workers=3) == 0


def test_a_cell_like_a_measured_one_takes_as_long(tmp_path):
    cells, (first, *rest) = Cells(tmp_path), cells_for(3, IMAGES)
    cells.open(first)
    cells.write_result(fakes.result_of(first, seconds=100.0))

    found = estimate(rest, [first], cells.result, device="cpu", workers=1)

    assert found.seconds == 200
    assert found.measured == 1


def test_another_cell_is_scaled_by_its_arithmetic(tmp_path):
    cells, (measured, *_) = Cells(tmp_path), cells_for(1, IMAGES)
    (wider,) = cells_for(1, IMAGES, model__filters=(64, 128, 256))
    cells.open(measured)
    cells.write_result(fakes.result_of(measured, seconds=100.0, num_epochs=10.0))

    found = estimate([wider], [measured], cells.result, device="cpu", workers=1)

    # Twice the filters: four times the products in all but the first and last layers, a factor of about 3.9 in all.
    assert 300 < found.seconds < 400


def test_other_cells_are_taken_to_stop_as_early_and_the_machine_is_no_faster_for_it(tmp_path):
    (cell,) = cells_for(1, IMAGES)
    (other,) = cells_for(1, IMAGES, training__max_epochs=40)
    cells = Cells(tmp_path)
    cells.open(cell)
    cells.write_result(fakes.result_of(cell, seconds=modelled_seconds(cell.settings, "cpu", 5.0), num_epochs=5.0))

    found = estimate([other], [cell], cells.result, device="cpu", workers=1)

    assert found.seconds == pytest.approx(modelled_seconds(other.settings, "cpu", 20.0))


def test_results_of_another_device_and_failures_do_not_count(tmp_path):
    cells, (one, two, three) = Cells(tmp_path), cells_for(3, IMAGES)
    for cell in (one, two):
        cells.open(cell)
    cells.write_result(fakes.result_of(one, device="cuda: H", seconds=1.0))
    cells.write_result(fakes.result_of(two, status="diverged"))

    assert estimate([three], [one, two], cells.result, device="cpu", workers=1).measured == 0


def test_disk_holds_the_weights_several_times(tmp_path):
    (cell,) = cells_for(1, IMAGES)

    found = estimate([cell], [], Cells(tmp_path).result, device="cpu", workers=1)

    assert found.disk_bytes == 4 * 4 * 390_410  # four copies of the baseline's parameters in float32


def test_bfloat16_is_expected_to_be_faster():
    slow = cells_for(1, IMAGES)[0].settings
    fast = with_overrides(slow, {"training.precision": "bfloat16"})

    assert modelled_seconds(fast, "cpu", 10) < 0.7 * modelled_seconds(slow, "cpu", 10)


def test_kernels_that_our_convolutions_do_not_suit_gain_nothing_by_them(monkeypatch):
    """Four models of one network, on a machine with and without the compiled convolutions."""
    overrides = ({}, {"model__kernel_size": 7}, {"model__pooling": "stride"}, {"training__threads": 2})
    seconds = {}
    for pays in (False, True):
        monkeypatch.setattr(harness.trainers.images.cost, "winograd_pays", lambda answer=pays: answer)
        settings = [cells_for(1, IMAGES, training__precision="bfloat16", **it)[0].settings for it in overrides]
        seconds[pays] = [modelled_seconds(it, "cpu", 10.0) for it in settings]
    assert seconds[True][0] < 0.7 * seconds[False][0]
    assert seconds[True][1:] == seconds[False][1:]


def test_cells_of_a_trainer_without_a_model_of_costs_take_the_mean_of_what_was_measured(tmp_path):
    cells, measured = Cells(tmp_path), cells_for(2)
    (other,) = cells_for(1, model__dropout=0.5)
    for cell, seconds in zip(measured, (10.0, 30.0), strict=True):
        cells.open(cell)
        cells.write_result(fakes.result_of(cell, seconds=seconds))

    assert estimate([other], measured, cells.result, device="cpu", workers=1).seconds == 20
    assert estimate([other], [], cells.result, device="cpu", workers=1).seconds == UNKNOWN_SECONDS


def test_where_no_cell_has_ended_a_sample_stands_in_for_it(tmp_path):
    cells, (first, second) = Cells(tmp_path), cells_for(2, IMAGES)
    (wider,) = cells_for(1, IMAGES, model__filters=(64, 128, 256))
    sample = Sample(first, 100.0, "a probe of some steps")

    def found(todo, ended=()):
        return estimate(todo, ended, cells.result, device="cpu", workers=1, sample=lambda: sample)

    assert found([second]).seconds == 100
    assert 300 < found([wider]).seconds < 400
    assert found([second]).bounds == (50.0, 205.0)
    assert found([second]).basis == "from a probe of some steps"
    cells.open(first)
    cells.write_result(fakes.result_of(first, seconds=10.0))
    assert found([second], [first]).seconds == 10
    assert found([second], [first]).basis == "from 1 measured cell"


@pytest.mark.slow
def test_a_probe_is_noted_for_every_command_that_follows(tmp_path):
    work = plan_work("task3", profile="quick", device="cpu", jobs=1, store=tmp_path / "store")
    _, guess = unfinished(work)
    assert "a guess" in guess.basis
    assert probe(work.plan, work.cells.root, "cpu")  # the real steps, in a process of their own
    again = plan_work("task3", profile="quick", device="cpu", jobs=1, store=tmp_path / "store")
    _, known = unfinished(again)
    assert known.basis == "from a probe of some steps"
    assert (known.bounds[1] - START_SECONDS) / known.bounds[0] == pytest.approx(4.0)
    assert known.seconds > 1.0
    (noted,) = (tmp_path / "store" / "probes").iterdir()
    for damaged in ("{}", "[]", '{"seconds": "a"}', "\0"):
        noted.write_text(damaged)
        assert "a guess" in unfinished(again)[1].basis


@pytest.mark.slow
def test_what_try_took_is_what_a_cell_of_ones_own_takes(tmp_path):
    path = write_study(tmp_path / "study", "function")
    try_study(path, store=tmp_path / "store", device="cpu")
    work = plan_work(path, device="cpu", jobs=1, store=tmp_path / "store")
    todo, expected = unfinished(work)
    tried = read_tried(work.cells.root, work.plan.study.name, work.plan.fingerprints)
    assert expected.basis == "from what `harness try` took"
    assert expected.seconds == pytest.approx(len(todo) * tried.seconds)


def test_an_estimate_is_a_range_that_measured_cells_make_narrower():
    guess, measured = Estimate(60.0, 0, 0), Estimate(60.0, 0, 4)
    assert guess.bounds == (10.0, 365.0)
    assert measured.bounds == (40.0, 95.0)


@pytest.mark.parametrize(
    ("least", "most", "said"),
    [
        (20, 90, "20 to 90 s"),
        (20, 600, "0 to 10 min"),
        (180, 720, "3 to 12 min"),
        (5400, 12240, "1.5 to 3.4 h"),
        (9.8, 10.2, "10 s"),
    ],
)
def test_a_range_of_time_is_said_in_one_unit(least, most, said):
    assert duration_range(least, most) == said


def test_what_takes_longer_than_expected_says_so_and_never_that_nothing_is_left():
    progress = RunProgress(Screen(), {}, 4, 0, (0.0, 1e-9), metric=METRICS.reporting)
    time.sleep(0.001)
    assert progress._left() == "longer than expected"
    progress._ended_here, progress._started = 4, time.monotonic() - 8.0
    progress.num_cells = 20
    assert progress._left() == "21 to 48 s left"
