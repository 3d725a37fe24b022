"""Means per variant, every seed's difference, and whether the cells may be compared at all."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from stats_tables import make_table

from harness.stats import comparability_problems, summary
from harness.stats.overview import PROVENANCE, percent_problems
from harness.store.result import Result


def test_the_summary_counts_what_ended_badly() -> None:
    cells = {"z": [0.7, "diverged", "missing", 0.72, "missing"], "baseline": [0.7], "m": ["failed", "failed"]}
    table = make_table(cells, {"z": "b+a"})
    rows = summary(table).set_index("variant")
    assert rows.index.tolist() == ["baseline", "m", "z"]
    assert rows[["n_ok", "n"]].to_numpy().tolist() == [[1, 1], [0, 2], [2, 5]]
    assert rows["outcomes"].tolist() == ["", "2 failed", "1 diverged, 2 missing"]
    assert rows["changes"].tolist() == ["", "m", "a+b"]
    assert (rows.loc["z", "mean"], rows.loc["z", "sd"]) == pytest.approx((0.71, np.sqrt(0.0002)))
    assert (rows.loc["z", "seconds"], rows.loc["z", "parameters"]) == (60, 1000)  # of the finished cells
    assert np.isnan(rows.loc["baseline", "sd"])
    assert np.isnan(rows.loc["m", ["mean", "sd", "seconds", "parameters"]].astype(float)).all()
    pd.testing.assert_frame_equal(summary(table.sample(frac=1, random_state=0)), summary(table))


def test_the_summary_is_of_the_metric_asked_for() -> None:
    assert summary(make_table({"a": [0.70, 0.72]}), metric="test/loss")["mean"].iloc[0] == pytest.approx(0.29)


OTHERWISE: dict[str, Any] = {
    "device": "NVIDIA H200",
    "precision": "bfloat16",
    "threads": 4,
    "versions": "torch 2.14.0",
    "commit": "0000000",
    "dirty": True,
    "data_fingerprint": "beef",
}


def test_every_recorded_condition_is_looked_at() -> None:
    assert set(OTHERWISE) == set(PROVENANCE)
    # What a result records about its surroundings is in its envelope, or a fact that training notes.
    assert {"device", "versions", "commit", "dirty"} == set(PROVENANCE) & set(Result.__dataclass_fields__)


@pytest.mark.parametrize("column", OTHERWISE)
def test_mixed_conditions_in_one_comparison_are_a_sentence(column: str) -> None:
    table = make_table({"baseline": [0.7, 0.7], "a": [0.7, 0.7], "b": [0.7, 0.7]})
    assert comparability_problems(table) == []
    table[column] = table[column].astype(object)
    table.loc[table["variant"] == "b", column] = OTHERWISE[column]
    problems = comparability_problems(table)
    assert len(problems) == 1
    assert f"2 {PROVENANCE[column]} in one comparison" in problems[0]
    assert f"{OTHERWISE[column]} (2 cells: b)" in problems[0]
    assert "(4 cells: a, baseline)" in problems[0]
    assert comparability_problems(table, ["baseline", "a"]) == []


def test_conditions_that_were_not_recorded_differ_from_those_that_were() -> None:
    table = make_table({"baseline": [0.7], "a": [0.7]})
    table.loc[table["variant"] == "a", "commit"] = ""
    assert "not recorded (1 cell: a)" in comparability_problems(table)[0]


def test_cells_that_did_not_finish_are_not_compared() -> None:
    table = make_table({"baseline": [0.7, "missing"], "a": [0.7, "failed"]})
    table.loc[table["status"] != "finished", ["device", "versions"]] = ""
    assert comparability_problems(table) == []


def test_percents_that_were_logged_as_percents_are_said() -> None:
    right = make_table({"baseline": [0.71, 0.72], "a": [0.75, 0.74]})
    wrong = make_table({"baseline": [71.0, 72.0], "a": [75.0, 74.0]})
    assert percent_problems(right) == []
    said = " ".join(percent_problems(wrong))
    assert (
        "test/accuracy is 73, but a metric with `unit: percent` is logged as a fraction (0.7 is shown as 70%)" in said
    )
