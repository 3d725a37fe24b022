"""What a search says it found, against what the known accuracies are; and what the Optuna dashboard shows of it."""

import json
import math
import shutil

import pytest
from fakes import result_of
from optuna_dashboard import get_note, wsgi
from searched import STUDY, accuracy, plan_of, with_trainer

from harness.errors import ResultsError
from harness.search.answer import make_answer
from harness.search.dashboard import note
from harness.search.run import search
from harness.search.sentences import biggest, headings, rows, sentences, to_json
from harness.search.space import Space
from harness.search.storage import open_storage, open_study, resolve_storage
from harness.store.cells import Cells

pytestmark = pytest.mark.slow

EVERY = 54


def answered(root, *, seeds=3, num_trials=EVERY, sampler="brute-force", only=(), study=STUDY, trainer=None):
    """A search whose cells all exist already, so that nothing is trained."""
    plan, cells = plan_of(seeds=seeds, only=only, study=study), Cells(root)
    if trainer is None:
        for changes in Space.of(plan).by_distance():
            for cell in plan.make_variant(changes).cells:
                cells.open(cell)
                value = accuracy(cell.settings, cell.seed)
                cells.write_result(result_of(cell, 0.123, val_accuracy=value))
    storage = resolve_storage(f"sqlite:///{root}/optuna.db", root)
    searched_plan = with_trainer(plan, trainer) if trainer else plan
    found = search(searched_plan, cells, storage=storage, num_trials=num_trials, sampler=sampler, executor="here")
    return found, plan, cells, storage


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The complete space."""
    return answered(tmp_path_factory.mktemp("everything"))


def mean_effect(plan, change, background=()):
    """What the trainer's own formula says that a change adds to a combination."""
    after, before = (plan.make_variant(_ordered(plan, names)) for names in ({*background, change}, {*background}))
    pairs = zip(after.cells, before.cells, strict=True)
    differences = [accuracy(a.settings, a.seed) - accuracy(b.settings, b.seed) for a, b in pairs]
    return sum(differences) / len(differences)


def _ordered(plan, names):
    return tuple(it.name for it in plan.study.changes if it.name in names)


def test_each_of_the_three_ways_says_what_the_formula_says(everything):
    answer, plan, *_ = everything
    for row in answer.alone.itertuples():
        assert row.mean == pytest.approx(mean_effect(plan, row.variant))
    assert set(answer.left_out["variant"]) == set(answer.best.changes)
    for row in answer.left_out.itertuples():
        rest = set(answer.best.changes) - {row.variant}
        assert row.mean == pytest.approx(mean_effect(plan, row.variant, rest))
    # Norm adds .10 where Adam is off and .02 where it is on; of the possible combinations two thirds are without Adam
    # (with Adam there is no momentum), and the model's other columns are balanced over them.
    norm = answer.averaged.set_index("change").loc["norm"]
    assert norm["mean"] == pytest.approx(2 / 3 * 0.10 + 1 / 3 * 0.02, abs=1e-3)
    assert norm["low"] < norm["mean"] < norm["high"]


def test_the_best_combination_is_the_one_with_the_highest_mean(everything):
    answer, plan, *_ = everything

    def mean(changes):
        return sum(accuracy(cell.settings, cell.seed) for cell in plan.make_variant(changes).cells) / 3

    assert answer.best.changes == max(Space.of(plan).by_distance(), key=mean) == ("adam", "norm", "kernel-7", "flip")
    assert answer.best_mean == pytest.approx(mean(answer.best.changes))
    assert answer.num_combinations == EVERY


def test_the_ways_disagree_where_changes_interact_and_the_changes_are_named(everything):
    answer, *_ = everything
    assert biggest(answer)["over_the_baseline"][0] == "norm"
    assert biggest(answer)["out_of_the_best"][0] == "flip"
    text = " ".join(sentences(answer))
    assert "over the baseline, norm (+10.0" in text
    assert "out of the best (adam+norm+kernel-7+flip), flip (+" in text
    assert "The ways disagree. The changes interact: " in text
    assert "norm adds +10.0" in text
    assert "adam x norm -8.0" in text
    assert "The biggest single improvement, in points with 95% intervals: " in text
    assert "None with fewer changes comes within one standard error, paired by seed, of it." in text


def test_changes_that_add_up_are_not_said_to_interact(tmp_path):
    answer, *_ = answered(tmp_path, only=("norm", "kernel-7", "flip"), num_trials=8)
    assert {top[0] for top in biggest(answer).values()} == {"norm"}
    text = " ".join(sentences(answer))
    assert "The ways agree on norm." in text
    worth = answer.gaps.set_index("variant")["mean"].abs()
    assert worth.max() < 0.002


def test_the_simplest_combination_within_one_standard_error_is_offered(everything):
    answer, *_ = everything
    # Between seeds the accuracy rises by .01 each, in every variant alike: paired, no gap is within its error.
    assert answer.simplest.best == answer.simplest.simplest == answer.best.name
    assert math.isnan(answer.simplest.standard_error)
    assert len(answer.simplest.simplest.split("+")) <= len(answer.best.changes)


def test_shapley_values_are_there_where_the_factorial_is_complete_and_only_there(everything, tmp_path):
    assert everything[0].shapley is None, "a group and clashes make no complete factorial"
    answer, plan, *_ = answered(tmp_path, only=("norm", "adam", "flip"), num_trials=8)
    values = answer.shapley.set_index("variant")["mean"]
    # Two orders: before Adam norm adds .10, after it .02; the mean is .06. Flip adds up with both.
    assert values["norm"] == pytest.approx(0.06, abs=1e-3)
    assert values.sum() == pytest.approx(
        mean_effect(plan, "norm") + mean_effect(plan, "adam", ["norm"]) + mean_effect(plan, "flip", ["norm", "adam"])
    )
    assert headings(answer)[-1] == "exact Shapley value"
    assert all(len(row) == 5 for row in rows(answer))


def test_fanova_is_named_and_finds_what_matters(everything):
    answer, *_ = everything
    assert sum(answer.importance.values()) == pytest.approx(1)
    assert set(answer.importance) == {"momentum", "adam", "norm", "kernel", "flip", "crop"}
    assert max(answer.importance, key=answer.importance.get) == "norm"
    assert "fANOVA importance" in " ".join(sentences(answer))


def test_no_test_number_is_shown_before_the_confirmation(everything):
    answer, *_ = everything  # every test accuracy is .123
    shown = [*sentences(answer), *answer.notes, note(answer), *(" ".join(row) for row in rows(answer))]
    assert not any("12.3" in text or "0.123" in text or "test accuracy" in text for text in shown)


def test_one_seed_gives_estimates_without_intervals_and_says_so(tmp_path):
    answer, *_ = answered(tmp_path, seeds=1, num_trials=12)
    assert "One seed: no interval, and nothing about the next seed." in answer.notes
    assert all("[" not in row[1] for row in rows(answer))
    assert any("takes two seeds at least" in sentence for sentence in sentences(answer))


def test_the_baseline_may_be_the_best(tmp_path):
    answer, *_ = answered(tmp_path, only=("kernel-3", "crop"), num_trials=4)
    assert answer.best.name == "baseline"
    assert answer.left_out.empty
    text = " ".join(sentences(answer))
    assert "Nothing that was tried is better than the baseline." in text
    assert "No change improves" in text
    assert "The ways" not in text


def test_a_search_that_was_cut_off_says_what_is_missing(tmp_path):
    answer, *_ = answered(tmp_path, num_trials=3)
    assert set(answer.alone["variant"]) == {"momentum", "adam"}
    assert ("norm", "not trained", "not in it", "not separable") not in rows(answer)
    assert answer.num_combinations == 3


def test_without_any_value_there_is_no_answer(tmp_path):
    plan, cells = plan_of(), Cells(tmp_path)
    with open_storage(resolve_storage(f"sqlite:///{tmp_path}/o.db", tmp_path)) as (storage, locks), locks.exclusive():
        study = open_study(storage, Space.of(plan))
        with pytest.raises(ResultsError, match="no combination has a value yet"):
            make_answer(study, Space.of(plan), cells)


def test_cells_that_are_in_another_store_are_missed_and_said(everything, tmp_path):
    _, plan, cells, storage = everything
    shutil.copytree(cells.root / "cells", tmp_path / "cells")
    shutil.rmtree(Cells(tmp_path).folder(plan.make_variant(("flip",)).cells[1].key))
    with open_storage(storage) as (optuna_storage, locks), locks.exclusive():
        study = open_study(optuna_storage, Space.of(plan))
        answer = make_answer(study, Space.of(plan), Cells(tmp_path))
        with pytest.raises(ResultsError, match="made with another --store"):
            make_answer(study, Space.of(plan), Cells(tmp_path / "empty"))
    assert "1 combination has cells that are not in this store (flip)" in " ".join(answer.notes)
    assert answer.alone.set_index("variant").loc["flip", "missing"] == "flip seed 1 not run"


def test_the_answer_is_data_too(everything):
    answer, *_ = everything
    data = json.loads(json.dumps(to_json(answer)))
    assert data["best"]["changes"] == ["adam", "norm", "kernel-7", "flip"]
    assert data["biggest"]["over_the_baseline"]["change"] == "norm"
    assert data["trials"] == {"complete": EVERY}
    assert {row["change"] for row in data["averaged"]} == set(Space.of(answer.plan).changes)


def test_the_dashboard_shows_note_metric_parameters_and_figures(everything):
    answer, _, _, storage = everything
    with open_storage(storage) as (optuna_storage, _):
        application = wsgi(optuna_storage)
        (summary,) = _get(application, "/api/studies")["study_summaries"]
        detail = _get(application, f"/api/studies/{summary['study_id']}")
        study = open_study(optuna_storage, Space.of(answer.plan))
        body = get_note(study)
    assert detail["name"] == answer.search
    assert detail["objective_names"] == ["mean validation accuracy"]
    assert {it["name"] for it in detail["union_search_space"]} == {"momentum", "adam", "norm", "kernel", "flip", "crop"}
    assert len(detail["trials"]) == EVERY
    assert detail["note"]["body"] == body == note(answer)
    assert "The importance panel may say something else" in body
    assert "| norm |" in body
    assert "\nEffects on validation accuracy in percentage points, with 95% t intervals; exploratory.\n" in body
    figures = {it["id"]: json.loads(it["graph_object"]) for it in detail["plotly_graph_objects"]}
    assert set(figures) == {"over-the-baseline", "alone-and-in-company", "interactions"}
    assert all(figure["data"] for figure in figures.values())


def _get(application, path):
    environment = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    environment |= {"wsgi.url_scheme": "http", "QUERY_STRING": "", "HTTP_HOST": "localhost"}
    statuses = []
    body = b"".join(application(environment, lambda status, headers, *_: statuses.append(status)))
    assert statuses == ["200 OK"]
    return json.loads(body)
