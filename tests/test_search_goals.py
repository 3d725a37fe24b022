"""A search for less: what is found, said, pruned and shown where the selecting metric is to be minimized."""

import json

import optuna
import pytest
import searched
from minimized import REPORTED, nll
from optuna.trial import TrialState
from optuna_dashboard import wsgi
from searched import POSSIBLE, plan_of
from test_search_answer import _get as get

from harness.errors import TrackingError
from harness.plan.plan import make_plan
from harness.search.dashboard import note
from harness.search.run import search
from harness.search.sentences import biggest, headings, rows, sentences, to_json
from harness.search.space import Space
from harness.search.storage import open_storage, open_study, resolve_storage, study_name
from harness.store.cells import Cells
from harness.store.result import Result
from harness.study.load import make_study

pytestmark = pytest.mark.slow

FIRST = 10  # trials: the baseline, seven changes, all-good, and the full combination


def minimizing(*, seeds=3, trainer="Trainer"):
    """`searched.plan_of`, of the mirror image."""
    return make_plan(
        make_study({**searched.STUDY, "trainer": {"class": f"minimized:{trainer}"}}),
        fingerprints=lambda settings: {"data": settings.data.kind},
        overrides={"training.precision": "float32"},
        designs=["add-one", "combinations"],
        seeds=range(seeds),
    )


def answered(root, plan, metrics_of):
    """A search over the complete space, whose cells all exist already."""
    cells, storage = Cells(root), resolve_storage(f"sqlite:///{root}/optuna.db", root)
    for changes in Space.of(plan).by_distance():
        for cell in plan.make_variant(changes).cells:
            cells.open(cell)
            cells.write_result(
                Result(key=cell.key, seed=cell.seed, status="finished", metrics=metrics_of(cell), num_steps=10)
            )
    options = {"num_trials": POSSIBLE, "sampler": "brute-force", "executor": "here"}
    return search(plan, cells, storage=storage, **options), storage


@pytest.fixture(scope="module")
def less(tmp_path_factory):
    root = tmp_path_factory.mktemp("less")
    return answered(root, minimizing(), lambda it: {"dev/nll": nll(it.settings, it.seed), "held_out/nll": REPORTED})


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """The same numbers as accuracies, of which more is better."""

    def metrics(cell):
        return {"val/accuracy": searched.accuracy(cell.settings, cell.seed), "test/accuracy": 0.1}

    return answered(tmp_path_factory.mktemp("more"), plan_of(seeds=3), metrics)


def test_whatever_is_found_is_the_mirror_image_of_what_more_would_find(less, more):
    (less, _), (more, _) = less, more
    assert less.metric.name == "dev/nll"
    assert less.best.changes == more.best.changes == ("adam", "norm", "kernel-7", "flip")
    assert less.best_mean == pytest.approx(2 - more.best_mean)
    assert less.simplest.simplest == more.simplest.simplest
    for way, (change, mean) in biggest(more).items():
        assert biggest(less)[way] == (change, pytest.approx(-mean))
    for table in ("alone", "left_out", "gaps", "pairs"):
        one, other = (getattr(it, table).set_index("variant")["mean"].sort_index() for it in (less, more))
        assert len(one) > 0
        assert one.tolist() == pytest.approx((-other).tolist(), abs=1e-12)
    assert [row[0] for row in rows(less)] == [row[0] for row in rows(more)], "the best average comes first in both"
    assert less.importance == pytest.approx(more.importance, abs=0.02)


def test_sentences_speak_of_less_in_the_words_of_the_metric(less):
    answer, _ = less
    text = " ".join([*sentences(answer), note(answer), *(" ".join(row) for row in rows(answer))])
    best = f"{answer.best_mean:.4f}"
    assert f"adam+norm+kernel-7+flip, {best} of development nll (seeds 0-2); the smallest of so many noisy" in text
    assert "probably too low" in text
    assert (
        "The biggest single improvement, with 95% intervals: over the baseline, norm (-0.1002 [-0.1006, -0.0997]"
        in text
    )
    assert "norm adds -0.1002 alone and -0.0" in text
    assert "adam x norm +0.08" in text, "beside Adam, norm takes away less"
    assert "the mean development nll over the seeds" in text
    assert "Effects on development nll (less is better), with 95% t intervals; exploratory." in text
    assert not [word for word in ("accuracy", "points", "validation", "test", "epoch", "held") if word in text]
    assert f"{REPORTED:.2f}" not in text


def test_the_answer_as_data_holds_numbers_as_they_were_logged(less):
    answer, _ = less
    data = json.loads(json.dumps(to_json(answer)))
    assert data["metric"] == "dev/nll"
    assert data["biggest"]["over_the_baseline"] == {"change": "norm", "mean": pytest.approx(-0.1, abs=1e-3)}
    assert {row["goal"] for row in data["over_the_baseline"]} == {"minimize"}
    assert len(headings(answer)) == len(rows(answer)[0])


def test_the_dashboard_knows_that_less_is_better_and_how_the_metric_is_called(less):
    answer, storage = less
    with open_storage(storage) as (optuna_storage, _):
        application = wsgi(optuna_storage)
        (summary,) = get(application, "/api/studies")["study_summaries"]
        detail = get(application, f"/api/studies/{summary['study_id']}")
    assert summary["directions"] == detail["directions"] == ["minimize"]
    assert detail["objective_names"] == ["mean development nll"]
    assert set(detail["trials"][0]["user_attrs"][0]) == {"key", "value"}
    assert "development nll" in {it["key"] for it in detail["trials"][0]["user_attrs"]}
    assert {it["id"] for it in detail["plotly_graph_objects"]} == {
        "over-the-baseline",
        "alone-and-in-company",
        "interactions",
    }
    assert answer.outcomes == {"complete": POSSIBLE}


def trials_after(root, plan, num_trials, prune):
    """Optuna's trials with their combinations, once these were tried by training."""
    storage = resolve_storage(f"sqlite:///{root}/optuna.db", root)
    search(plan, Cells(root), storage=storage, num_trials=num_trials, prune=prune, executor="here")
    space = Space.of(plan)
    with open_storage(storage) as (optuna_storage, locks), locks.exclusive():
        return [(it, space.changes_of(it.params)) for it in open_study(optuna_storage, space, prune).get_trials()]


def mean_nll(plan, changes):
    cells = plan.make_variant(changes).cells
    return sum(nll(cell.settings, cell.seed) for cell in cells) / len(cells)


def test_the_winner_is_found_by_training_too(tmp_path):
    plan = minimizing(seeds=2)
    trials = trials_after(tmp_path, plan, FIRST, "none")
    for trial, changes in trials:
        assert trial.value == pytest.approx(mean_nll(plan, changes))
    left_out = [trial for trial, _ in trials if trial.user_attrs["why"].startswith("the best without")]
    best = min((changes for _, changes in trials[:FIRST]), key=lambda changes: mean_nll(plan, changes))
    assert {trial.user_attrs["why"] for trial in left_out} <= {f"the best without {change}" for change in best}
    assert left_out


def test_wilcoxon_gives_up_on_the_worse_combinations(tmp_path):
    plan = minimizing(seeds=8)
    trials = trials_after(tmp_path, plan, FIRST + 10, "wilcoxon")
    pruned = [changes for trial, changes in trials if trial.state == TrialState.PRUNED]
    best = min(mean_nll(plan, changes) for trial, changes in trials if trial.state == TrialState.COMPLETE)
    assert pruned
    assert all(mean_nll(plan, changes) > best for changes in pruned)


def test_halving_gives_up_on_the_worse_combinations(tmp_path):
    plan = minimizing(seeds=2, trainer="ByEpochs")
    trials = trials_after(tmp_path, plan, FIRST + 6, "halving")
    pruned = [trial for trial, _ in trials if trial.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        step, value = max(trial.intermediate_values.items())
        rivals = [it.intermediate_values.get(step) for it, _ in trials if it.number != trial.number]
        assert min(it for it in rivals if it is not None) < value
        assert step in (2, 6), "after one epoch or three"
    best = min((changes for _, changes in trials), key=lambda changes: mean_nll(plan, changes))
    assert best not in [changes for trial, changes in trials if trial.state == TrialState.PRUNED]


def test_an_optuna_study_of_the_other_goal_is_refused_with_what_to_do(tmp_path):
    space = Space.of(minimizing())
    with open_storage(resolve_storage(None, tmp_path)) as (storage, _):
        optuna.create_study(storage=storage, study_name=study_name(space, "none"), direction="maximize")
        with pytest.raises(TrackingError, match="to maximize dev/nll, but this search is to minimize dev/nll: name"):
            open_study(storage, space)


def test_an_optuna_study_of_another_metric_is_refused_with_what_to_do(tmp_path):
    space = Space.of(minimizing())
    with open_storage(resolve_storage(None, tmp_path)) as (storage, _):
        study = open_study(storage, space)
        assert open_study(storage, space).study_name == study.study_name
        study.set_user_attr("metric", "dev/perplexity")
        with pytest.raises(
            TrackingError, match=r"minimize dev/perplexity, but .* minimize dev/nll: name another --sto"
        ):
            open_study(storage, space)


@pytest.mark.filterwarnings("ignore:.*set_metric_names is experimental")
def test_an_optuna_study_of_0_1_is_known_by_the_title_of_its_values(tmp_path):
    space = Space.of(plan_of())
    with open_storage(resolve_storage(None, tmp_path)) as (storage, _):
        study = optuna.create_study(storage=storage, study_name=study_name(space, "none"), direction="maximize")
        study.set_metric_names(["mean validation accuracy"])
        assert open_study(storage, space).user_attrs["metric"] == "val/accuracy"
        other = Space.of(minimizing(seeds=2))
        assert study_name(other, "none") == study.study_name, "told apart by what their values mean alone"
        with pytest.raises(
            TrackingError, match="made to maximize val/accuracy, but this search is to minimize dev/nll"
        ):
            open_study(storage, other)
