"""One family, one correction: the same effect has the same p wherever it is shown, and whoever asked for what when."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner
from own import write_study
from tracked import mlflow_runs

from harness.api.ablation import ablate
from harness.cli import cli
from harness.report.tables import Tables
from harness.store.load import load_results
from harness.tracking import resolve_uri

pytestmark = pytest.mark.slow

CODE = """
import random
def train(run):
    s = run.settings
    noise = random.Random(run.seed_for("noise")).gauss(0, 0.02)
    luck = random.Random(run.seed_for("luck", s.a, s.b, s.c)).gauss(0, 0.02)
    score = 1 + 0.05 * s.a + 0.02 * s.b + noise + luck
    run.finish(**{"val/score": score, "test/score": score})
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    changes = [{"name": name, "overrides": {name: True}} for name in "abc"]
    return write_study(
        tmp_path / "study",
        function=CODE,
        baseline=dict.fromkeys("abc", False),
        changes=changes,
        combinations=[{"name": "both", "changes": ["a", "b"]}],
        designs=["add-one", "combinations"],
        profiles={"standard": {"seeds": 8}},
    )


def test_an_effect_has_one_p_in_the_terminal_json_export_report_mlflow_and_python(study, tmp_path):
    store = tmp_path / "store"
    where = ["--study", str(study), "--store", str(store), "--device", "cpu"]

    def run(*arguments):
        done = CliRunner().invoke(cli, [*arguments])
        assert done.exit_code == 0, done.output
        return done

    run("ablate", *where, "--executor", "here")
    whole = json.loads(run("ablate", *where, "--executor", "here", "--json").stdout)
    alone = json.loads(run("ablate", *where, "--executor", "here", "--json", "--only", "b").stdout)
    printed = run("ablate", *where, "--executor", "here", "--only", "b").stdout
    run("export", *where[:4], "--table", "effects", "--output", str(tmp_path / "effects.csv"))
    exported = pd.read_csv(tmp_path / "effects.csv")
    table = Tables(load_results(str(study), store=store), load_curves=pd.DataFrame).effects
    python = ablate(study, store=store, device="cpu", executor="here", only=["b"]).effects
    runs = mlflow_runs(resolve_uri(None, store), store, "own")["variant"]

    def p_of(rows):
        (row,) = [it for it in rows if (it["design"], it["variant"]) == ("add-one", "b")]
        return row["p_holm"], row["m"]

    (expected, m) = p_of(whole["effects"])
    assert m == 3
    assert 0.0078125 < expected < 1  # three times the smallest p at most: the correction shows
    for rows in (alone["effects"], *(frame.to_dict("records") for frame in (exported, table, python))):
        assert p_of(rows) == (pytest.approx(expected), 3)
    (of_b,) = [it for it in runs if it.info.run_name == "b"]
    assert of_b.data.metrics["test/score:best/p_holm"] == pytest.approx(expected)
    assert "Shown: 1 of the 3 that this study run holds; corrected over all of them." in printed
    assert "Holm over 3" in printed
    assert not [line for line in printed.splitlines() if line.startswith("c ")]
