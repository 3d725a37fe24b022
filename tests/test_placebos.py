"""A/A that can fail: trained again, training that is not repeatable is found; drift makes placebos claim."""

import numpy as np
import pytest
from click.testing import CliRunner
from own import write_study
from stats_tables import make_table, noisy

from harness.api.placebos import compare_placebos, train_again
from harness.api.work import plan_work, prepare
from harness.cli import cli
from harness.errors import ResultsError
from harness.execution.runner import run
from harness.stats.intervals import clopper_pearson


def test_placebos_of_steady_training_claim_nothing():
    found = compare_placebos(make_table({"baseline": noisy(0.74, 61, 3)}), 10)
    assert (found.count, found.num_seeds, found.looks) == (5, 10, (8, 10))
    assert found.claimed == ()
    assert found.num_single == 3
    assert (found.rate_low, found.rate_high) == pytest.approx(clopper_pearson(found.num_rejected, 3))
    assert "5 changes that change nothing, 10 seeds each, with looks at 8, 10 seeds" in str(found)


def test_drift_between_first_and_last_cells_makes_them_claim():
    drifting = [0.74 - 0.0004 * place + noise for place, noise in enumerate(noisy(0, 40, 1, sd=0.001))]
    found = compare_placebos(make_table({"baseline": drifting}), 10)
    assert found.claimed == ("placebo-1", "placebo-2", "placebo-3")
    assert found.num_rejected == found.num_single == 2
    assert "claimed, falsely: placebo-1" in str(found)


def test_blocks_in_which_nothing_could_be_claimed_are_refused():
    for n, pairs in ((11, 6), (40, 5)):
        with pytest.raises(ResultsError, match=r"`harness aa --seeds 12 --pairs 6` trains them"):
            compare_placebos(make_table({"baseline": noisy(0.74, n, 3)}), pairs)


@pytest.mark.ordeal
@pytest.mark.slow
def test_they_claim_in_one_study_of_twenty_at_most():
    studies = 300
    tables = (make_table({"baseline": list(np.random.default_rng(it).normal(0.7, 0.01, 40))}) for it in range(studies))
    rate = sum(bool(compare_placebos(table, 10).claimed) for table in tables) / studies
    assert rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


NOT_REPEATABLE = """
import os
def train(run):
    s = run.settings
    noise = int.from_bytes(os.urandom(2)) / 2**16 if s.lucky else 0.0
    score = run.seed_for("x") / 2**63 + noise
    run.finish(**{"val/score": score, "test/score": score})
"""


@pytest.mark.parametrize("is_lucky", [False, True])
def test_the_same_seeds_again_say_whether_training_is_repeatable(tmp_path, is_lucky):
    path = write_study(
        tmp_path / "study",
        function=NOT_REPEATABLE,
        baseline={"lucky": is_lucky},
        changes=[{"name": "other", "overrides": {"lucky": not is_lucky}}],
    )
    work = plan_work(path, store=tmp_path / "store", device="cpu", seeds=4)
    cells = work.plan.variants[0].cells
    prepare(work, cells)
    run(cells, work.cells, devices=["cpu"], provenance={}, executor="here")
    before = [work.cells.result(cell.key) for cell in cells]

    found = train_again(work, cells)

    assert found.num_cells == 4
    assert found.num_equal == (0 if is_lucky else 4)
    assert (found.sd > 0, found.largest > 0) == (is_lucky, is_lucky)
    assert ("came out differently" in str(found)) == is_lucky
    assert [work.cells.result(cell.key) for cell in cells] == before


@pytest.mark.slow
def test_the_command_says_both(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = write_study(tmp_path / "study")
    where = ["--study", str(path), "--store", str(tmp_path / "store"), "--device", "cpu"]
    done = CliRunner().invoke(cli, ["aa", *where, "--seeds", "12", "--again", "2"])
    assert done.exit_code == 0, done.output
    assert "Placebos: 1 change that changes nothing, 6 seeds each" in done.output
    assert "The same seeds again: 2 cells, the same bits." in done.output
