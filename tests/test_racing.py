"""Racing: seeds in blocks, and none more for what is decided or too small to matter."""

import pytest
from click.testing import CliRunner
from own import write_study
from schemas import fitting

from harness.api.ablation import ablate
from harness.api.racing import planned_looks
from harness.cli import cli
from harness.errors import StudyError
from harness.report.tables import Tables
from harness.store.load import load_results

CODE = """
import random
def train(run):
    s = run.settings
    noise = random.Random(run.seed_for("noise")).gauss(0, 0.02)
    luck = random.Random(run.seed_for("luck", s.large, s.none, s.small)).gauss(0, 0.01)
    score = 1 + 0.10 * s.large + 0.012 * s.small + noise + luck
    run.finish(**{"val/score": score, "test/score": score})
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = ("large", "none", "small")
    return write_study(
        tmp_path / "study",
        function=CODE,
        baseline=dict.fromkeys(names, False),
        changes=[{"name": name, "overrides": {name: True}} for name in names],
        designs=["add-one"],
        profiles={"standard": {"seeds": 16, "looks": [8, 12]}, "few": {"seeds": 6}},
    )


def test_a_race_looks_as_declared_or_every_four_seeds_and_at_the_horizon():
    assert planned_looks(24) == (8, 12, 16, 20, 24)
    assert planned_looks(10) == (8, 10)
    assert planned_looks(20, [6, 12, 24]) == (6, 12, 20)


@pytest.mark.slow
def test_a_race_trains_no_more_of_what_is_decided_or_too_small(study, tmp_path):
    store = tmp_path / "store"
    found = ablate(
        study, race=True, mde=2.0, store=store, device="cpu", executor="here"
    )  # .02: the score is in raw units
    trained = found.results.groupby("variant").size().to_dict()
    verdicts = found.effects.set_index("variant")["verdict"].to_dict()

    assert trained["large"] == 8
    assert verdicts["large"] == "improves"
    assert 8 <= trained["none"] <= trained["small"]
    assert sum(trained.values()) < 4 * 16
    assert trained["baseline"] == max(trained.values())
    row = found.effects.set_index("variant").loc["large"]
    assert (row["n"], row["n_planned"], row["missing"]) == (8, 8, "")  # what was given up is not missing
    looks = found.results.attrs["manifest"].looks
    assert [len(look.seeds) for look in looks][:2] == [8, 12]

    where = ["--study", str(study), "--store", str(store), "--executor", "here"]
    again = CliRunner().invoke(cli, ["ablate", *where, "--race", "--mde", "2.0", "--json"])
    assert again.exit_code == 0, again.output
    assert {it["variant"]: it["verdict"] for it in fitting("ablate", again.stdout)["effects"]} == verdicts
    assert load_results(str(study), store=store).groupby("variant").size().to_dict() == trained
    assert Tables(load_results(str(study), store=store), load_curves=lambda: None).headline.is_supported


def test_a_race_needs_an_effect_and_seeds_enough(study, tmp_path):
    with pytest.raises(StudyError, match="--race needs --mde EFFECT"):
        ablate(study, race=True, store=tmp_path / "store", device="cpu", executor="here")
    with pytest.raises(StudyError, match="more than 8 seeds, not 6"):
        ablate(study, race=True, mde=1.0, profile="few", store=tmp_path / "store", device="cpu", executor="here")


def test_looks_must_rise(tmp_path):
    wrong = write_study(tmp_path / "wrong", function=CODE, profiles={"standard": {"seeds": 16, "looks": [12, 8]}})
    with pytest.raises(StudyError, match="rising numbers of seeds"):
        ablate(wrong, store=tmp_path / "store", device="cpu", executor="here")
