"""One family, one correction: the same effect has the same p wherever it is shown, and whoever asked for what when."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner
from own import write_study
from schemas import fitting
from tracked import mlflow_runs

from harness.api.ablation import ablate
from harness.cli import cli
from harness.live.effects import effects as live_effects
from harness.report.tables import Tables
from harness.store.cells import Cells
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


def test_an_effect_has_one_p_in_the_terminal_json_export_report_live_page_mlflow_and_python(study, tmp_path):
    store = tmp_path / "store"
    where = ["--study", str(study), "--store", str(store), "--device", "cpu"]

    def run(*arguments):
        done = CliRunner().invoke(cli, [*arguments])
        assert done.exit_code == 0, done.output
        return done

    run("ablate", *where, "--executor", "here")
    whole = fitting("ablate", run("ablate", *where, "--executor", "here", "--json").stdout)
    alone = json.loads(run("ablate", *where, "--executor", "here", "--json", "--only", "b").stdout)
    printed = run("ablate", *where, "--executor", "here", "--only", "b").stdout
    run("export", *where[:4], "--table", "effects", "--output", str(tmp_path / "effects.csv"))
    exported = pd.read_csv(tmp_path / "effects.csv")
    table = Tables(load_results(str(study), store=store), load_curves=pd.DataFrame).effects
    python = ablate(study, store=store, device="cpu", executor="here", only=["b"]).effects
    runs = mlflow_runs(resolve_uri(None, store), store, "own")["variant"]

    def p_of(rows):
        (row,) = [it for it in rows if (it["design"], it["variant"]) == ("add-one", "b")]
        return row["p_adjusted"], row["m"]

    (expected, m) = p_of(whole["effects"])
    assert m == 3
    (raw,) = [it["p"] for it in whole["effects"] if (it["design"], it["variant"]) == ("add-one", "b")]
    assert raw < expected < 1  # the correction shows
    for rows in (alone["effects"], *(frame.to_dict("records") for frame in (exported, table, python))):
        assert p_of(rows) == (pytest.approx(expected), 3)
    cells = Cells(store)
    (manifest,) = [it for it in cells.manifests().values() if it.study == "own"]
    (row,) = [line for line in printed.splitlines() if line.startswith("b ")]
    assert live_effects(cells, manifest, look=False)["effects"]["b"]["p"] in row.split()  # of the page of `harness ui`
    (of_b,) = [it for it in runs if it.info.run_name == "b"]
    assert of_b.data.metrics["test/score:best/p_adjusted"] == pytest.approx(expected)
    assert "Shown: 1 of the 3 that this study run holds; corrected over all of them." in printed
    # a, b, c and a+b against the baseline, and the interaction of a and b.
    over = "over all 5 comparisons of this study run, with 80% of the error budget for the 3 changes of this design."
    assert f"adjusted by Westfall-Young {over}" in printed
    assert not [line for line in printed.splitlines() if line.startswith("c ")]


def test_looks_are_counted_and_cost_and_the_p_is_one_everywhere(study, tmp_path):
    store = tmp_path / "store"
    where = ["--study", str(study), "--store", str(store), "--device", "cpu"]

    def run(*arguments):
        done = CliRunner().invoke(cli, [*arguments])
        assert done.exit_code == 0, done.output
        return done

    run("ablate", *where, "--executor", "here", "--seeds", "6")
    run("report", *where[:4], "--output", str(tmp_path / "page"))  # the same seeds: no look of its own
    printed = run("ablate", *where, "--executor", "here").stdout
    answer = fitting("ablate", run("ablate", *where, "--executor", "here", "--json").stdout)
    run("export", *where[:4], "--table", "effects", "--output", str(tmp_path / "effects.csv"))
    results = load_results(str(study), store=store)
    manifest = results.attrs["manifest"]

    assert manifest.horizon == 8
    assert [len(look.seeds) for look in manifest.looks] == [6, 8]
    assert all(look.command and look.time for look in manifest.looks)
    assert "group-sequential Westfall-Young over all 5 comparisons of this study run, with 80%" in printed
    assert "for the 3 changes of this design; look 2, at 8 of 8 planned seeds" in printed
    exported = pd.read_csv(tmp_path / "effects.csv")
    python = Tables(results, load_curves=pd.DataFrame).effects
    alone = westfall_young_of(results)
    for mine, theirs, plain in zip(answer["effects"][:3], exported.itertuples(), alone, strict=False):
        assert mine["p_adjusted"] == pytest.approx(theirs.p_adjusted)
        assert mine["p_adjusted"] >= plain - 1e-12
    assert exported["p_adjusted"].tolist() == pytest.approx(python["p_adjusted"].tolist())

    beyond = json.loads(run("ablate", *where, "--executor", "here", "--seeds", "9", "--json").stdout)
    assert {it["correction"] for it in beyond["effects"]} == {
        "group-sequential Westfall-Young, then e-process and Holm"
    }
    assert load_results(str(study), store=store).attrs["manifest"].horizon == 8
    moved = CliRunner().invoke(cli, ["ablate", *where, "--horizon", "20", "--seeds", "10"])
    assert moved.exit_code == 2
    assert "declared 8 seeds before its first cell, and that holds" in moved.output
    planned, refused = (
        CliRunner().invoke(cli, ["plan", *where, *it])
        for it in (["--seeds", "20"], ["--seeds", "auto", "--mde", "0.5"])
    )
    assert "20 seeds are more than these 8, which this study run declared" in " ".join(planned.output.split())
    assert refused.exit_code == 2
    assert "seeds, and 8 are declared" in refused.output


def westfall_young_of(results):
    """The adjusted p of one look, in the order of the table."""
    once = results.copy()
    once.attrs["manifest"] = replace(results.attrs["manifest"], looks=())
    return Tables(once, load_curves=pd.DataFrame).effects["p_adjusted"].tolist()
