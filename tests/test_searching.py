"""`harness.api.searching`: a search from Python, over training of one's own, with nothing printed."""

import json

import optuna
import pytest
from optuna.trial import TrialState
from own import write_study
from tracked import a_store, mlflow_runs

from harness.api.searching import search
from harness.api.training import Watch
from harness.errors import StudyError
from harness.search.sentences import biggest, to_json
from harness.search.storage import open_storage

pytestmark = pytest.mark.slow

# A random walk whose steps grow with the width and the rate; the score is to be low. `never` is read by nobody.
LESS = {
    "metrics": {"val/score": {"goal": "minimize"}, "test/score": {"goal": "minimize"}},
    "changes": [
        {"name": "wide", "overrides": {"model.width": 16}},
        {"name": "narrow", "overrides": {"model.width": 2}},
        {"name": "slow", "overrides": {"rate": 0.4}},
        {"name": "ignored", "overrides": {"never": 2}},
    ],
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Path of a study, and where to search it."""
    for name in ("MLFLOW_TRACKING_URI", "HARNESS_OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    a_store(tmp_path / "mlruns")
    return write_study(tmp_path / "own", **LESS), {"store": tmp_path / "mlruns", "device": "cpu", "executor": "here"}


def trials_of(where, name):
    with open_storage(f"sqlite:///{where['store']}/optuna.db") as (storage, _):
        names = [name] if name else optuna.get_all_study_names(storage=storage)
        return optuna.load_study(study_name=names[0], storage=storage).get_trials()


def test_a_search_from_python_finds_what_lowers_the_score_most(own, capsys):
    path, where = own
    seen, problems = [], []
    watch = Watch(lambda it: seen.append(it.kind), problems.append)
    answer = search(path, trials=6, skip=("ignored",), watch=watch, **where)
    assert (answer.metric.name, answer.metric.goal) == ("val/score", "minimize")
    assert answer.best.changes == ("narrow", "slow")
    assert {name: top[0] for name, top in biggest(answer).items()} == dict.fromkeys(biggest(answer), "narrow")
    assert to_json(answer)["metric"] == "val/score"
    assert seen.count("ended") == len(answer.table)
    assert problems == []
    assert capsys.readouterr().out == ""


def test_its_trials_are_runs_in_mlflow_and_the_same_call_trains_nothing(own, tmp_path):
    path, where = own
    request = {"trials": 3, "only": ("wide", "narrow"), "seeds": 1}
    answer = search(path, **request, **where)
    runs = mlflow_runs(f"sqlite:///{tmp_path}/mlruns/mlflow.db", tmp_path, "own")["cell"]
    assert {run.data.tags["harness.search"] for run in runs} == {answer.search}
    assert sorted(run.data.tags["harness.trial"] for run in runs) == ["0", "1", "2"]
    assert all({"val/score", "val/score:best", "test/score:best"} <= run.data.metrics.keys() for run in runs)
    seen = []
    again = search(path, **request, watch=Watch(lambda it: seen.append(it.kind)), **where)
    assert json.dumps(to_json(again)) == json.dumps(to_json(answer))
    assert "ended" not in seen


def test_a_change_that_training_never_reads_ends_the_search_and_names_the_way_out(own):
    path, where = own
    with pytest.raises(StudyError, match=r"change 'ignored' is a placebo: training never reads never.*--skip"):
        search(path, trials=8, **where)
    states = {trial.state for trial in trials_of(where, "")}
    assert TrialState.RUNNING not in states
    assert TrialState.COMPLETE in states, "what has ended is saved"
    with pytest.raises(StudyError, match="change 'ignored' is a placebo"):
        search(path, trials=8, **where)
    assert search(path, trials=4, skip=("ignored",), **where).best.changes == ("narrow",)
