"""Pre-registration: written down before the first cell, never after it; what was done otherwise is said."""

from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner
from own import write_study

from harness.cli import cli
from harness.plan.manifest import Manifest
from harness.plan.registration import departures, registration, smallest_that_matters
from harness.report.summary import provenance
from harness.report.tables import Tables
from harness.store.load import load_results

CODE = """
import random
def train(run):
    s = run.settings
    noise = random.Random(run.seed_for("noise")).gauss(0, 0.02)
    score = 0.5 + 0.001 * s.a + noise + random.Random(run.seed_for("luck", s.a, s.b)).gauss(0, 0.0005)
    run.finish(**{"val/score": score, "test/score": score})
"""


def study_in(folder):
    changes = [{"name": name, "overrides": {name: True}} for name in "ab"]
    return write_study(
        folder,
        function=CODE,
        baseline=dict.fromkeys("ab", False),
        changes=changes,
        designs=["add-one"],
        profiles={"standard": {"seeds": 8}},
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    where = ["--study", str(study_in(tmp_path / "study")), "--store", str(tmp_path / "store")]

    def call(command, *arguments, exit_code=0):
        done = CliRunner().invoke(cli, [command, *where, *arguments])
        assert done.exit_code == exit_code, done.output
        return done.output

    return call


@pytest.mark.slow
def test_a_study_is_frozen_before_its_first_cell_and_its_report_says_what_was_done_otherwise(run, tmp_path):
    said = run("plan", "--freeze", "--hypothesis", "a helps", "--mde", "1")
    assert "2 comparisons on 8 seeds by test/score" in said
    assert "was frozen at" in run("plan", "--freeze", exit_code=2)
    run("ablate", "--executor", "here")
    found = load_results("own", store=tmp_path / "store")
    rows = dict(provenance(Tables(found, load_curves=pd.DataFrame)))
    assert rows["done as planned"] == "as planned"
    assert "hypothesis: a helps" in rows["plan"]
    assert rows["horizon"] == "8 seeds, declared before the first cell"
    # One point was declared to matter, and a is worth a tenth of it.
    verdicts = Tables(found, load_curves=pd.DataFrame).effects.set_index("variant")["verdict"].to_dict()
    assert verdicts["a"] == "equivalent"

    run("ablate", "--executor", "here", "--seeds", "9", "--design", "add-one,pairs")
    rows = dict(provenance(Tables(load_results("own", store=tmp_path / "store"), load_curves=pd.DataFrame)))
    assert "compared, though not planned: pairs" in rows["done as planned"]
    assert "9 seeds instead of 8" in rows["done as planned"]


@pytest.mark.slow
def test_nothing_is_written_down_after_the_first_cell(run):
    run("ablate", "--executor", "here", "--only", "a", "--seeds", "2")
    assert "nothing can be written down before the first" in run("plan", "--freeze", exit_code=2)


def test_an_edit_of_what_was_written_down_is_seen():
    from stats_tables import TOY

    manifest = replace(TOY, horizon=8)
    frozen = replace(manifest, frozen=registration(manifest, "2026-01-01T00:00:00Z", mde=0.01))
    assert Manifest.from_json(frozen.to_json()) == frozen
    assert departures(frozen, range(8)) == []
    assert smallest_that_matters(frozen) == 0.01
    assert smallest_that_matters(manifest) == 0.0
    edited = replace(frozen, frozen={**frozen.frozen, "horizon": 6})
    assert departures(edited, range(6)) == ["what was written down was edited afterwards: its hash does not fit"]


def test_a_hypothesis_alone_is_refused(run):
    assert "--hypothesis goes with --freeze" in run("plan", "--hypothesis", "a helps", exit_code=2)
