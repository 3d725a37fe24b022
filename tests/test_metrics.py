"""Metrics: words, units, digits and signs, for both goals; what a study may declare; what is said when it may not."""

import json
import math

import pytest

from harness.errors import ResultsError, StudyError
from harness.metrics import COSTS, PEAK_MEMORY, SECONDS, Metric, Metrics, declared_metrics

ACCURACY = Metric.declared("test/accuracy", "maximize", "percent")
LOSS = Metric.declared("val/loss", "minimize", "nats")
PERPLEXITY = Metric.declared("dev/word_perplexity", "minimize", digits=1)
METRICS = Metrics((ACCURACY, LOSS, PERPLEXITY), select="val/loss", report="test/accuracy")
NAN = math.nan


@pytest.mark.parametrize(
    ("metric", "words", "axis", "difference_axis"),
    [
        (ACCURACY, "test accuracy", "test accuracy [%]", "test accuracy [points]"),
        (LOSS, "validation loss", "validation loss [nats]", "validation loss [nats]"),
        (PERPLEXITY, "development word perplexity", "development word perplexity", "development word perplexity"),
        (SECONDS, "seconds", "seconds [s]", "seconds [s]"),
        (PEAK_MEMORY, "peak memory", "peak memory [MB]", "peak memory [MB]"),
    ],
)
def test_a_metric_is_called_as_a_reader_would_say_it(metric, words, axis, difference_axis):
    assert (metric.words, metric.axis, metric.difference_axis) == (words, axis, difference_axis)


@pytest.mark.parametrize(
    ("metric", "value", "plain", "said"),
    [
        (ACCURACY, 0.74214, "74.21", "74.21%"),
        (LOSS, 0.81229, "0.8123", "0.8123 nats"),
        (PERPLEXITY, 31.04, "31.0", "31.0"),
        (SECONDS, 12.34, "12.3", "12.3 s"),
        (PEAK_MEMORY, 549_326_848, "549", "549 MB"),
    ],
)
def test_a_value_is_written_in_the_units_of_people(metric, value, plain, said):
    assert (metric.format(value), metric.say(value)) == (plain, said)


@pytest.mark.parametrize(
    ("metric", "value", "signed", "unsigned"),
    [
        (ACCURACY, 0.0116, "+1.16 points", "1.16 points"),
        (ACCURACY, -0.0116, "-1.16 points", "1.16 points"),
        (LOSS, -0.0312, "-0.0312 nats", "0.0312 nats"),
        (PERPLEXITY, 2.5, "+2.5", "2.5"),
        (SECONDS, 12.3, "+12.3 s", "12.3 s"),
        (ACCURACY, 0.00004, "0.00 points", "0.00 points"),  # nothing is left after rounding: neither plus nor minus
        (ACCURACY, -0.00004, "0.00 points", "0.00 points"),
        (LOSS, -0.0, "0.0000 nats", "0.0000 nats"),
        (PEAK_MEMORY, -400_000, "0 MB", "0 MB"),
    ],
)
def test_a_difference_is_written_with_its_sign_and_unit(metric, value, signed, unsigned):
    assert metric.say_difference(value) == signed
    assert metric.say_difference(value, signed=False) == unsigned


def test_spreads_estimates_and_intervals():
    assert ACCURACY.format_spread(0.7421, 0.0031) == "74.21 ± 0.31"
    assert ACCURACY.format_spread(0.7421, NAN) == "74.21"
    assert ACCURACY.format_estimate(0.012, 0.004, 0.02) == "+1.20 [+0.40, +2.00]"
    assert LOSS.format_estimate(-0.05, NAN, NAN) == "-0.0500"
    assert LOSS.say_interval(-0.06, -0.04) == "-0.0600, -0.0400"
    assert LOSS.say_interval(0.04, 0.06, signed=False) == "0.0400, 0.0600"
    assert LOSS.say_interval(NAN, 0.06) == "no interval"


@pytest.mark.parametrize("write", [ACCURACY.format, ACCURACY.format_signed])
def test_where_there_is_no_number_there_is_a_dash(write):
    assert write(NAN) == "–"


def test_the_sign_turns_a_difference_into_an_improvement():
    assert ACCURACY.sign * (0.8 - 0.7) > 0
    assert LOSS.sign * (0.7 - 0.8) > 0
    assert (ACCURACY.is_maximized, LOSS.is_maximized) == (True, False)
    assert all(not cost.is_maximized for cost in COSTS)


def test_a_name_is_a_split_and_a_base():
    assert (LOSS.split, LOSS.base) == ("val", "loss")
    assert (SECONDS.split, SECONDS.base) == ("", "seconds")


def test_metrics_are_found_by_name_costs_included_and_another_name_is_refused_with_the_nearest():
    assert METRICS["val/loss"] is LOSS
    assert METRICS["seconds"] is SECONDS
    assert "peak_memory_bytes" in METRICS
    assert list(METRICS) == [ACCURACY, LOSS, PERPLEXITY]
    assert (METRICS.selecting, METRICS.reporting) == (LOSS, ACCURACY)
    with pytest.raises(
        ResultsError, match=r"unknown metric 'test_accuracy'. Did you mean 'test/accuracy'\? There are: "
    ):
        METRICS["test_accuracy"]


def test_the_twin_of_a_metric_is_its_namesake_on_another_split():
    both = Metrics((LOSS, Metric.declared("test/loss", "minimize")), "val/loss", "test/loss")
    assert both.twin(both["test/loss"], "val") == LOSS
    assert both.twin(LOSS, "train") is None
    assert both.twin(SECONDS, "val") is None
    assert both.on("val") == (LOSS,)


def test_metrics_read_back_from_json():
    assert Metrics.from_json(json.loads(json.dumps(METRICS.to_json()))) == METRICS


DECLARED = {"val/loss": {"goal": "minimize"}, "test/f1": {"goal": "maximize", "unit": "percent", "digits": 1}}


def test_a_study_declares_metrics_in_the_order_of_its_tables():
    found = declared_metrics(DECLARED, "val/loss", "test/f1")
    assert found.names == ("val/loss", "test/f1")
    assert (found.select, found.report, found.is_exploratory) == ("val/loss", "test/f1", False)
    assert (found["val/loss"].digits, found["val/loss"].factor) == (4, 1.0)
    assert (found["test/f1"].digits, found["test/f1"].factor) == (1, 100.0)
    assert found["test/f1"].say(0.5) == "50.0%"


def test_one_metric_for_both_purposes_makes_everything_exploratory():
    assert declared_metrics(DECLARED, "val/loss", "val/loss").is_exploratory


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (None, "metrics: required: what training reports, such as"),
        ({}, "metrics: required"),
        (["val/loss"], "metrics: required"),
        ({"loss": {"goal": "minimize"}}, "metrics: 'loss' is no name of a metric; expected <split>/<name>"),
        ({"val/a/b": {"goal": "minimize"}}, "metrics: 'val/a/b' is no name of a metric"),
        ({"val/": {"goal": "minimize"}}, "metrics: 'val/' is no name of a metric"),
        ({3: {"goal": "minimize"}}, "metrics: '3' is no name of a metric"),
        ({"val/loss": "minimize"}, "metrics: val/loss: expected {goal: maximize} or {goal: minimize}, not 'minimize'."),
        ({"val/loss": {}}, "metrics: val/loss.goal: expected maximize or minimize, not None."),
        ({"val/loss": {"goal": "min"}}, "metrics: val/loss.goal: expected maximize or minimize, not 'min'."),
        ({"val/loss": {"goal": ["minimize"]}}, "metrics: val/loss.goal: expected maximize or minimize"),
        ({"val/loss": {"goal": "minimize", "units": "s"}}, "metrics: val/loss: unknown key 'units'"),
        ({"val/loss": {"goal": "minimize", "unit": 3}}, "metrics: val/loss.unit: expected percent, raw, or a symbol"),
        ({"val/loss": {"goal": "minimize", "unit": ""}}, "metrics: val/loss.unit: expected"),
        ({"val/loss": {"goal": "minimize", "digits": 1.5}}, "metrics: val/loss.digits: expected a whole number"),
        ({"val/loss": {"goal": "minimize", "digits": True}}, "metrics: val/loss.digits: expected a whole number"),
        ({"val/loss": {"goal": "minimize", "digits": -1}}, "metrics: val/loss.digits: expected a whole number"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_with_its_place(declared, message):
    first = str(next(iter(declared), "")) if declared else ""
    with pytest.raises(StudyError) as error:
        declared_metrics(declared, first or "val/loss", first or "val/loss")
    (problem,) = error.value.problems
    assert problem.startswith(message)


@pytest.mark.parametrize("chosen", [None, "", 3, ["val/loss"]])
def test_select_and_report_must_be_said(chosen):
    with pytest.raises(StudyError) as error:
        declared_metrics(DECLARED, chosen, chosen)
    select, report = error.value.problems
    assert select.startswith("select: required: the name of the metric that picks the best step and the winner, one of")
    assert report.startswith(
        "report: required: the name of the metric that is reported once, at the end, one of val/loss"
    )


def test_select_and_report_must_be_declared():
    with pytest.raises(StudyError) as error:
        declared_metrics(DECLARED, "val/los", "test/accuracy")
    assert error.value.problems == (
        "select: unknown metric 'val/los'. Did you mean 'val/loss'? `metrics` declares: val/loss, test/f1.",
        "report: unknown metric 'test/accuracy'. `metrics` declares: val/loss, test/f1.",
    )


def test_everything_wrong_in_a_declaration_is_reported_at_once():
    with pytest.raises(StudyError) as error:
        declared_metrics({"loss": {"goal": "down", "digits": -1, "colour": "red"}, "val/loss": 3}, None, "x")
    assert len(error.value.problems) == 4 + 1 + 2


def test_splits_and_quantities_have_words_of_their_own():
    assert [
        Metric.declared(name, "minimize").split_words for name in ("train/x", "val/x", "test/x", "out_of_town/x")
    ] == [
        "training",
        "validation",
        "test",
        "out of town",
    ]
    assert (ACCURACY.base_axis, SECONDS.base_axis) == ("accuracy [%]", "seconds [s]")
    assert Metric.declared("val/word_error_rate", "minimize").base_axis == "word error rate"


def test_a_logged_number_has_as_many_digits_as_the_shown_one():
    assert (ACCURACY.digits, ACCURACY.logged_digits) == (2, 4)  # 74.21% is 0.7421
    assert (LOSS.logged_digits, PEAK_MEMORY.logged_digits) == (4, 0)
