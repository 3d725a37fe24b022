"""Confirmation: fresh seeds, made once, apart from the search; the model that MLflow gives back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import cells_for, result_of
from own import write_study
from schemas import fitting

from harness.api.ablation import ablate
from harness.api.confirmation import begin_confirmation, confirm, fresh_seeds, pick_winner, save_confirmation
from harness.cli import cli
from harness.errors import StudyError
from harness.plan.manifest import Manifest, RunVariant
from harness.store.cells import Cells
from harness.store.load import results_table
from harness.trainers.images.train import BEST_WEIGHTS_FILE
from harness.trainers.images.trainer import METRICS, ImageTrainer

pytestmark = pytest.mark.slow

STUDY = """
name: small
title: A study of seconds
baseline:
  data: {kind: shapes, train_images: 300, test_images: 100}
  model: {filters: [4, 4, 4]}
  training: {max_epochs: 1, precision: float32}
changes:
  - {name: batch-norm, summary: batch normalization, overrides: {model.batch_norm: true}}
  - {name: dropout, summary: dropout, overrides: {model.dropout: 0.5}}
profiles: {standard: {seeds: 2}}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "small.yaml").write_text(STUDY)

    def call(*arguments: str, exit_code: int = 0) -> str:
        answer = CliRunner().invoke(cli, list(arguments))
        assert answer.exit_code == exit_code, answer.output
        return answer.output

    return call


def manifest_of(name, variant, cells):
    """A study run of one variant; `cells` are keys by seed."""
    return Manifest(
        id=name,
        study="small",
        title="A study of seconds",
        profile="standard",
        exploratory=False,
        metrics=METRICS,
        trainer=ImageTrainer().to_json(),
        fingerprints={},
        baseline={},
        variants=(RunVariant(variant, () if variant == "baseline" else (variant,), "", "", cells),),
        comparisons=(),
    )


def test_fresh_seeds_lie_above_every_seed_of_every_study_run(tmp_path):
    cells = Cells(tmp_path)
    for name, seeds in (("a", [0, 1]), ("b", [10, 2])):
        cells.write_manifest(manifest_of(name, "baseline", dict.fromkeys(seeds, "key")))

    assert fresh_seeds(cells, 3) == (11, 12, 13)
    assert fresh_seeds(Cells(tmp_path / "empty"), 2) == (0, 1)


@pytest.mark.ordeal
def test_a_confirmation_is_made_once_on_fresh_seeds_and_leaves_the_search_alone(run, tmp_path):
    run("ablate", "--study", "small.yaml", "--executor", "here")
    first = run("confirm", "--study", "small.yaml", "--variant", "batch-norm", "--seeds", "7")
    again = run("confirm", "--study", "small.yaml", "--variant", "batch-norm")
    more = run("confirm", "--study", "small.yaml", "--variant", "batch-norm", "--seeds", "9", exit_code=2)

    assert "on seeds 2, 3, 4, 5, 6, 7, 8" in first
    assert "14 to train" in first
    assert "14 done, 0 to train" in again
    headline = next(line for line in first.splitlines() if "7 fresh seeds" in line)
    assert headline in again
    assert "would be no confirmation" in more
    manifests = Cells(tmp_path / "mlruns").manifests().values()
    confirmations = [it for it in manifests if it.confirms]
    assert [it.headline for it in confirmations] == [headline]
    listed = fitting("results", run("results", "--study", "small", "--json"))["cells"]
    assert {row["seed"] for row in listed} == {0, 1}


def test_a_winner_that_the_study_run_lacks_is_named_with_those_it_has(run):
    run("ablate", "--study", "small.yaml", "--executor", "here", "--only", "dropout", "--seeds", "1")

    output = run("confirm", "--study", "small.yaml", "--variant", "batch-norm", exit_code=2)

    assert "no such variant; it has: dropout" in output


def test_aa_prints_the_noise_floor_of_the_baseline_alone(run):
    output = run("aa", "--study", "small.yaml", "--seeds", "4")

    assert "4 cells, 0 done, 4 to train" in output
    assert "points" in output


def test_an_aa_of_too_few_seeds_is_refused_before_it_trains_any(run, tmp_path):
    output = run("aa", "--study", "small.yaml", "--seeds", "3", exit_code=2)

    assert "this is 3 seeds in all. Nothing was trained; give --seeds 4 or more." in output
    assert not Cells(tmp_path / "mlruns").all_keys()


def test_the_greedy_path_ends_in_comparisons_of_its_own(run, tmp_path):
    output = run("ablate", "--study", "small.yaml", "--executor", "here", "--greedy")

    (manifest,) = Cells(tmp_path / "mlruns").manifests().values()
    steps = [it for it in manifest.comparisons if it.design == "path:greedy"]
    assert f"ends after {len(steps)} steps" in output


@pytest.mark.ordeal
@pytest.mark.filterwarnings("ignore")  # of MLflow's own: its type hints, torch's export under it
def test_the_champion_loads_from_mlflow_and_computes_what_the_network_computes(run, tmp_path):
    import mlflow
    import torch
    from safetensors.torch import save_file

    from harness.tracking.registry import register_champion
    from harness.trainers.images.models import build_model
    from harness.trainers.images.trained import Classifier, load_network

    overrides = {"data": {"kind": "shapes", "train_images": 100, "test_images": 50}, "model__filters": (4, 4, 4)}
    cell, other = cells_for(2, ImageTrainer(), model__batch_norm=True, **overrides)
    cells, cache = Cells(tmp_path / "mlruns"), Path("cache")
    for it, accuracy in ((cell, 0.9), (other, 0.4)):
        network = build_model(it.settings.model, 10, image_size=(32, 32), seed=it.seed)
        save_file(network.state_dict(), cells.open(it) / BEST_WEIGHTS_FILE)
        cells.write_result(result_of(it, val_accuracy=accuracy))
    manifest = manifest_of("small-1-confirm", "batch-norm", {0: cell.key, 1: other.key})

    address = register_champion(cells, manifest, "batch-norm", "Confirmed.")

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    loaded = mlflow.pytorch.load_model(address)
    images = torch.rand(5, 3, 32, 32)  # another batch size than that of the example
    network, names, size = load_network(
        cell.settings, cell.seed, cells.folder(cell.key) / BEST_WEIGHTS_FILE, cache=cache
    )
    expected = Classifier(network, cell.settings.preprocessing).eval()(images)
    assert address == "models:/small@champion"
    assert (len(names), size) == (10, (32, 32))
    torch.testing.assert_close(loaded(images), expected)
    version = mlflow.MlflowClient().get_model_version_by_alias("small", "champion")
    assert version.description == "Confirmed."
    register_champion(cells, manifest, "batch-norm", "Confirmed.")
    assert (
        len(mlflow.MlflowClient().search_model_versions("name = 'small'")) == 1
    )  # the same model, not registered twice


LESS = {
    "metrics": {"val/score": {"goal": "minimize"}, "test/score": {"goal": "minimize"}},
    "changes": [
        {"name": "wide", "overrides": {"model.width": 16}},  # adds to the score: worse
        {"name": "narrow", "overrides": {"model.width": 2}},
        {"name": "slow", "overrides": {"rate": 0.4}},
    ],
}


def test_of_a_metric_to_be_minimized_the_lowest_is_confirmed_and_a_trainer_without_a_model_says_so(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path, where = write_study(tmp_path / "own", **LESS), {"store": tmp_path / "mlruns", "device": "cpu"}
    ablate(path, executor="here", **where)
    found = confirm(path, seeds=7, **where)
    assert found.winner == "narrow"
    assert found.effect.seeds == (2, 3, 4, 5, 6, 7, 8)
    assert found.effect.high < 0
    assert "narrow" in found.sentence
    assert found.registered == ""
    assert found.unregistered == "Nothing was registered: the trainer of this study (function) exports no model."
    command = ["confirm", "--study", str(path), "--store", str(where["store"]), "--device", "cpu", "--json"]
    told = fitting("confirm", CliRunner().invoke(cli, command).stdout)  # made already: nothing is trained
    assert (told["variant"], told["outcome"], told["seeds"]) == ("narrow", found.outcome, [2, 3, 4, 5, 6, 7, 8])
    assert told["high"] == found.effect.high
    assert told["sentence"] == found.sentence


def test_what_is_worse_is_not_registered_though_its_numbers_are_higher(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path, where = write_study(tmp_path / "own", **LESS), {"store": tmp_path / "mlruns", "device": "cpu"}
    ablate(path, executor="here", only=("wide",), **where)
    found = confirm(path, variant="wide", seeds=7, **where)
    assert found.effect.low > 0
    assert found.unregistered == "Nothing was registered: the winner is refuted."


def test_of_several_cells_the_model_of_the_best_by_the_selecting_metric_is_registered(tmp_path):
    from harness.tracking.registry import _best_result

    cells, trained = Cells(tmp_path), cells_for(3)
    for cell, loss in zip(trained, (0.5, 0.2, 0.9), strict=True):
        cells.open(cell)
        cells.write_result(result_of(cell, val_loss=loss, val_accuracy=loss))
    more = manifest_of("a", "batch-norm", {cell.seed: cell.key for cell in trained})
    less = replace(more, metrics=replace(METRICS, select="val/loss"))
    assert _best_result(cells, more, "batch-norm").seed == 2
    assert _best_result(cells, less, "batch-norm").seed == 1


def study_of(tmp_path, effect, seeds=8):
    """A study with one change, trained; its winner is `wide`."""
    code = f"""
import random
def train(run):
    noise = random.Random(run.seed_for("noise")).gauss(0, 0.01)
    luck = random.Random(run.seed_for("luck")).choice([0.2, 1.8])
    score = 1 + {effect} * (run.settings.model.width > 8) * luck + noise
    run.finish(**{{"val/score": score, "test/score": score}})
"""
    changes = [{"name": "wide", "overrides": {"model.width": 16}}]
    path = write_study(tmp_path / "study", function=code, changes=changes, profiles={"standard": {"seeds": seeds}})
    where = {"store": tmp_path / "store", "device": "cpu"}
    ablate(path, executor="here", **where)
    return path, where


def test_a_confirmation_that_cannot_decide_is_refused_before_anything_is_trained(tmp_path):
    path, where = study_of(tmp_path, 0.3)
    num_cells = len(list((tmp_path / "store" / "cells").iterdir()))

    with pytest.raises(StudyError, match=r"--seeds 5: this confirmation is tested at 0\.0304 .* at least 7 seeds"):
        confirm(path, seeds=5, **where)

    assert len(list((tmp_path / "store" / "cells").iterdir())) == num_cells


def test_without_a_number_there_are_as_many_seeds_as_can_decide(tmp_path):
    path, where = study_of(tmp_path, 0.3, seeds=3)

    found = confirm(path, **where)

    assert (found.outcome, found.effect.n) == ("confirmed", 7)
    assert found.sentence.startswith("Confirmed.")
    assert "exports no model" in found.unregistered


def test_no_table_asks_to_confirm_what_fresh_seeds_have_decided(tmp_path, run):
    path, where = study_of(tmp_path, 0.3, seeds=6)
    command = ("ablate", "--study", str(path), "--store", str(where["store"]), "--device", "cpu")

    def said():
        found = ablate(path, **where)
        return [run(*command), run(*command, "--json"), found.headline.sentence, found._repr_html_()]

    assert ["harness confirm" in text for text in said()] == [True] * 4
    confirm(path, seeds=7, **where)
    assert ["harness confirm" in text for text in said()] == [False] * 4


def test_what_the_sentence_says_is_what_is_registered(tmp_path):
    """The interval of this effect excludes zero while its test at .0304 does not: one decision, not two."""
    path, where = study_of(tmp_path, 0.0)

    found = confirm(path, seeds=7, **where)

    assert found.outcome == "not confirmed"
    assert found.sentence.startswith("Not confirmed.")
    assert found.unregistered == "Nothing was registered: the winner is not confirmed."
    (manifest,) = [it for it in Cells(tmp_path / "store").manifests().values() if it.confirms]
    assert (manifest.outcome, manifest.alpha) == ("not confirmed", pytest.approx(0.0303964, abs=1e-6))


def test_a_variant_with_fewer_seeds_than_others_is_not_the_winner(tmp_path):
    path, where = study_of(tmp_path, 0.3)
    text = json.loads(path.read_text())
    text["changes"].append({"name": "lucky", "overrides": {"rate": 9.0}})
    path.write_text(json.dumps(text))
    (tmp_path / "study" / "training.py").write_text(
        (tmp_path / "study" / "training.py")
        .read_text()
        .replace("noise\n    run", "noise + (run.settings.rate > 1)\n    run")
    )
    ablate(path, executor="here", only=["wide"], **where)
    found = ablate(path, executor="here", only=["lucky"], seeds=[0], **where)
    whole = results_table(found.work.cells, found.work.cells.manifests()[found.work.plan.id])

    assert whole.groupby("variant")["seed"].count().to_dict() == {"baseline": 8, "lucky": 1, "wide": 8}
    assert pick_winner(whole) == "wide"


def test_a_confirmation_with_a_cell_that_fails_concludes_and_advises_what_it_has(tmp_path):
    path, where = study_of(tmp_path, 0.3)
    code = tmp_path / "study" / "training.py"
    fails = "    if run.seed == 9 and run.settings.model.width > 8:\n        raise ValueError('planted')\n"
    code.write_text(code.read_text().replace("def train(run):\n", f"def train(run):\n{fails}"))
    ablate(path, executor="here", **where)  # another study run: the code is another

    store = str(tmp_path / "store")
    done = CliRunner().invoke(
        cli, ["confirm", "--study", str(path), "--store", store, "--device", "cpu", "--seeds", "8"]
    )

    assert done.exit_code == 1
    assert "--retry-failed" not in done.output
    assert "They stay outcomes of their variants" in done.output
    assert "on 7 fresh seeds" in done.output
    assert "Missing: wide seed 9 failed" in done.output
    assert "Nothing was registered" in done.output or "exports no model" in done.output


def test_a_winner_that_was_edited_or_renamed_since_is_not_confirmed_as_something_else(tmp_path):
    path, where = study_of(tmp_path, 0.3)
    num_cells = len(list((tmp_path / "store" / "cells").iterdir()))
    before = path.read_text()

    path.write_text(
        before.replace('"model.width": 16', '"model.width": 12').replace("model.width: 16", "model.width: 12")
    )
    with pytest.raises(StudyError, match=r"other settings in the study now .* Nothing was trained"):
        confirm(path, variant="wide", **where)
    path.write_text(before.replace("wide", "broad"))
    with pytest.raises(StudyError, match="has no change wide any more"):
        confirm(path, variant="wide", **where)

    assert len(list((tmp_path / "store" / "cells").iterdir())) == num_cells


def test_of_two_confirmations_that_begin_at_once_one_is_asked_to_begin_again(tmp_path):
    """Both counted none before: each would have the first one's share of the error."""
    changes = [{"name": it, "overrides": {"model.width": width}} for it, width in (("wide", 16), ("wider", 24))]
    code = "def train(run):\n    run.finish(**{'val/score': run.seed % 7, 'test/score': run.seed % 7})\n"
    path = write_study(tmp_path / "study", function=code, changes=changes, profiles={"standard": {"seeds": 2}})
    where = {"store": tmp_path / "store", "device": "cpu"}
    ablate(path, executor="here", **where)
    first, second = (begin_confirmation(path, variant=it, **where) for it in ("wide", "wider"))

    save_confirmation(*first[:2])
    with pytest.raises(StudyError, match=r"begun at this moment.* Nothing was trained"):
        save_confirmation(*second[:2])

    again = begin_confirmation(path, variant="wider", **where)
    assert save_confirmation(*again[:2]).alpha < first[1].alpha
    assert save_confirmation(*first[:2]) == first[1], "the one that is there, continued"


def test_the_look_that_was_taken_while_a_confirmation_was_trained_stays_in_its_manifest(tmp_path):
    path, where = study_of(tmp_path, 0.3)
    found = confirm(path, **where)
    (manifest,) = [it for it in Cells(tmp_path / "store").manifests().values() if it.confirms]
    assert manifest.headline == found.sentence
    assert manifest.looks


def test_fresh_seeds_are_none_that_the_study_run_is_still_to_have(tmp_path):
    path, where = study_of(tmp_path, 0.3, seeds=3)
    path.write_text(path.read_text().replace("seeds: 3", "seeds: 20").replace('"seeds": 3', '"seeds": 20'))
    ablate(path, seeds=3, horizon=20, executor="here", only=["wide"], **{**where, "store": tmp_path / "other"})
    _, manifest, _ = begin_confirmation(path, seeds=7, **{**where, "store": tmp_path / "other"})
    assert min(manifest.variants[0].cells) == 20


def test_training_that_ignores_its_seed_claims_nothing_and_is_not_confirmed(tmp_path):
    changes = [{"name": "wide", "overrides": {"model.width": 16}}]
    code = "def train(run):\n    run.finish(**dict.fromkeys(('val/score', 'test/score'), run.settings.model.width))\n"
    path = write_study(tmp_path / "study", function=code, changes=changes, profiles={"standard": {"seeds": 8}})
    where = {"store": tmp_path / "store", "device": "cpu"}

    found = ablate(path, executor="here", **where)

    assert list(found.effects["verdict"]) == ["exploratory"]
    with pytest.raises(StudyError, match=r"Every seed gave the same numbers.*nothing was trained"):
        confirm(path, **where)
