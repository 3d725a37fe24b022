"""Searching in one process, with trainers that obey known accuracies: which trials there are, and what is trained."""

from collections import Counter

import pytest
import searched
from fakes import result_of
from optuna.trial import TrialState
from searched import POSSIBLE, num_calls, plan_of, with_trainer

from harness.execution.runner import run
from harness.search.run import search
from harness.search.space import Space
from harness.search.storage import open_storage, open_study, resolve_storage
from harness.store.cells import Cells

pytestmark = pytest.mark.slow

FIRST = 10  # the baseline, seven changes, all-good, and the full combination


class Bench:
    """A store with a storage beside it, and the space that is searched there."""

    def __init__(self, root):
        self.cells, self.storage = Cells(root), resolve_storage(f"sqlite:///{root}/optuna.db", root)
        self.plan = plan_of()

    def search(self, num_trials, trainer="Trainer", **options):
        options = {"executor": "here", "num_trials": num_trials} | options
        return search(with_trainer(self.plan, trainer), self.cells, storage=self.storage, **options)

    def study(self, do=lambda study: None, prune="none"):
        """Its Optuna trials, after something was done to the study from outside."""
        with open_storage(self.storage) as (storage, locks), locks.exclusive():
            study = open_study(storage, Space.of(self.plan), prune)
            do(study)
            return study.get_trials()

    def combinations(self, trials):
        space = Space.of(self.plan)
        return [space.changes_of(trial.params) for trial in trials]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_the_baseline_every_single_change_and_the_combinations_are_tried_first(bench):
    bench.search(FIRST)
    trials = bench.study()[:FIRST]
    assert bench.combinations(trials) == list(Space.of(bench.plan).first())
    assert [trial.user_attrs["why"] for trial in trials[:3]] == ["the baseline", "a single change", "a single change"]


def test_the_value_is_the_mean_validation_accuracy_over_the_seeds(bench):
    bench.search(2)
    for trial, changes in zip(bench.study(), [(), ("momentum",)], strict=True):
        cells = bench.plan.make_variant(changes).cells
        expected = [searched.accuracy(cell.settings, cell.seed) for cell in cells]
        assert trial.value == pytest.approx(sum(expected) / 2)
        assert trial.user_attrs["cells"] == {"0": cells[0].key, "1": cells[1].key}
        assert trial.intermediate_values == {0: expected[0], 1: expected[1]}


@pytest.mark.parametrize(("sampler", "more"), [("tpe", 12), ("gp", 3), ("brute-force", 12)])
def test_no_combination_is_tried_twice_nor_one_that_cannot_be(bench, sampler, more):
    bench.search(FIRST + more, sampler=sampler)
    tried = bench.combinations(bench.study())
    assert len(tried) == len(set(tried)) >= FIRST + more
    assert not any(Space.of(bench.plan).why_not(changes) for changes in tried)
    assert set(num_calls(bench.cells).values()) == {1}


def test_the_same_command_again_adds_nothing_and_a_larger_one_the_rest(bench):
    bench.search(FIRST)
    before, calls = bench.study(), num_calls(bench.cells)
    bench.search(FIRST)
    assert bench.study() == before
    bench.search(FIRST + 2)
    added = [trial for trial in bench.study()[len(before) :] if trial.user_attrs["why"].startswith("sampled")]
    assert len(added) == 2
    assert num_calls(bench.cells).items() >= calls.items()


def test_fewer_trials_than_the_beginning_has_are_a_beginning_that_continues(bench):
    bench.search(3)
    assert bench.combinations(bench.study())[:3] == [(), ("momentum",), ("adam",)]
    bench.search(FIRST)
    assert set(Space.of(bench.plan).first()) <= set(bench.combinations(bench.study()))


def test_the_best_without_each_of_its_changes_is_tried_last_and_not_counted(bench):
    answer = bench.search(FIRST)
    left_out = [it for it in bench.study() if it.user_attrs["why"].startswith("the best without")]
    best = set(answer.best.changes)
    tried = [set(changes) for changes in bench.combinations(bench.study())]
    assert left_out
    assert all(best - {change} in tried for change in best)
    assert len(bench.study()) == FIRST + len(left_out)


def test_a_search_ends_when_every_possible_combination_was_tried(bench):
    bench.plan = plan_of(seeds=1)
    bench.search(1000, sampler="brute-force")
    tried = bench.combinations(bench.study())
    assert len(tried) == len(set(tried)) == POSSIBLE


def test_cells_that_exist_are_read_never_trained_again(bench):
    run(bench.plan.cells, bench.cells, devices=["cpu"], provenance={}, executor="here")  # as ablate
    before = num_calls(bench.cells)
    bench.search(FIRST)
    assert num_calls(bench.cells).items() >= before.items()
    assert sum(num_calls(bench.cells).values()) == len(num_calls(bench.cells))


def test_a_repetition_enqueued_by_hand_is_answered_from_the_store_and_does_not_count(bench):
    bench.search(2)

    def enqueue(study):
        study.enqueue_trial(Space.of(bench.plan).params_of(("momentum",)))

    bench.study(enqueue)
    bench.search(3)
    again = next(trial for trial in bench.study() if trial.user_attrs["why"] == "enqueued by hand")
    assert again.value == bench.study()[1].value
    assert ("adam",) in bench.combinations(bench.study()), "the third combination was still tried"
    assert set(num_calls(bench.cells).values()) == {1}


def test_what_somebody_enqueues_that_cannot_be_is_named_and_cleared_away(bench):
    space = Space.of(bench.plan)

    def enqueue(study):
        study.enqueue_trial(space.params_of(()) | {"momentum": True, "adam": True})
        study.enqueue_trial(space.params_of(()) | {"kernel": "kernel-9"})

    bench.study(enqueue)
    bench.search(2)
    impossible, nonsense, *others = bench.study()
    assert impossible.state == TrialState.PRUNED
    assert "momentum" in impossible.user_attrs["refused"]
    assert nonsense.state == TrialState.FAIL
    assert bench.combinations(others)[:2] == [(), ("momentum",)], "neither of the two counts"
    assert {trial.state for trial in others} == {TrialState.COMPLETE}


def test_a_combination_whose_cell_diverges_has_no_value_and_is_named(bench):
    answer = bench.search(FIRST, "WithoutAdam")
    failed = [trial for trial in bench.study() if "failed" in trial.user_attrs]
    assert [trial.state for trial in failed] == [TrialState.FAIL] * len(failed)
    assert all("adam" in changes for changes in bench.combinations(failed))
    assert failed[0].user_attrs["failed"] == "seed 1: diverged: loss is not finite at epoch 4"
    assert any("diverged" in note and "adam" in note for note in answer.notes)
    adam = answer.alone.set_index("variant").loc["adam"]
    assert (adam["n"], adam["n_planned"]) == (1, 2)
    assert "adam" not in answer.best.changes


def test_what_failed_is_tried_again_only_on_request(bench):
    bench.search(3, "WithoutAdam")
    bench.search(3)
    assert [trial.state for trial in bench.study()].count(TrialState.FAIL) == 1

    answer = bench.search(3, retry_failed=True)
    again = next(trial for trial in bench.study() if trial.user_attrs.get("retry of trial") == 2)
    assert again.state == TrialState.COMPLETE
    assert answer.outcomes == {"complete": 3, "retried": 1}
    assert not any("diverged" in note for note in answer.notes)
    assert Counter(num_calls(bench.cells).values()) == Counter({1: len(num_calls(bench.cells))})


def test_an_interrupt_gives_the_trials_back(bench):
    def interrupt(progress):
        if progress.kind == "ended" and len(num_calls(bench.cells)) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.search(FIRST, on_progress=interrupt)
    states = Counter(trial.state for trial in bench.study())
    assert states[TrialState.RUNNING] == 0
    assert states[TrialState.FAIL] == 1

    bench.search(FIRST)
    assert {trial.state for trial in bench.study()} == {TrialState.COMPLETE, TrialState.FAIL}
    assert set(Space.of(bench.plan).first()) <= set(bench.combinations(bench.study()))
    assert set(num_calls(bench.cells).values()) == {1}


def test_when_the_time_is_up_nothing_begins_and_the_same_command_continues(bench):
    bench.search(1)
    answer = bench.search(FIRST, "Slow", seconds=0.15)
    states = Counter(trial.state for trial in bench.study())
    assert states[TrialState.RUNNING] == 0
    assert states[TrialState.WAITING] > 0
    assert "The time was up before everything was tried." in answer.notes
    assert any("not finished" in note for note in answer.notes)
    assert bench.search(FIRST).outcomes.get("waiting", 0) == 0


def test_wilcoxon_prunes_sampled_combinations_and_never_compared_ones(bench):
    bench.plan = plan_of(seeds=8)  # more than four and the workers: some are neither needed nor under way
    bench.search(FIRST + 10, prune="wilcoxon")
    pruned = [trial for trial in bench.study() if trial.state == TrialState.PRUNED]
    assert pruned
    assert {trial.user_attrs["why"] for trial in pruned} == {"sampled (tpe)"}
    assert all(4 <= len(trial.intermediate_values) < 8 for trial in pruned)
    finished = bench.combinations(trial for trial in bench.study() if trial.state == TrialState.COMPLETE)
    given_up = [changes for changes in bench.combinations(pruned) if changes not in finished]
    assert given_up, "some may be completed for the answer: the best without a change"
    for changes in given_up:
        ended = [bench.cells.result(cell.key) for cell in bench.plan.make_variant(changes).cells]
        assert sum(result is not None for result in ended) < 8, "its other seeds were not trained"


def test_a_pruned_combination_is_tried_in_full_once_the_answer_compares_it(bench):
    bench.plan = plan_of(seeds=6)
    bench.search(FIRST + 10, prune="wilcoxon")
    pruned = bench.combinations(trial for trial in bench.study() if trial.state == TrialState.PRUNED)[0]
    named = {"name": "wanted", "changes": list(pruned)}
    bench.plan = plan_of(seeds=6, study=searched.STUDY | {"combinations": [named]})

    answer = bench.search(FIRST + 10, prune="wilcoxon")

    again = [trial for trial in bench.study() if trial.user_attrs["why"] == "the combination wanted"]
    assert [trial.state for trial in again] == [TrialState.COMPLETE]
    assert bench.combinations(again) == [pruned]
    assert "wanted" in set(answer.table["variant"])


@pytest.mark.parametrize(("seeds", "said"), [(3, "cannot act with 3 seeds"), (4, "can act from the 4th of 4 seeds")])
def test_wilcoxon_says_whether_it_can_act_with_so_many_seeds(bench, seeds, said):
    bench.plan = plan_of(seeds=seeds)
    answer = bench.search(1, prune="wilcoxon")
    assert said in answer.notes[0]


@pytest.mark.ordeal
def test_halving_stops_a_combination_early_and_its_cell_continues_where_it_was(bench):
    bench.search(FIRST + 4, "ByEpochs", prune="halving")
    trials = bench.study(prune="halving")
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned
    assert {trial.user_attrs["why"] for trial in pruned} == {"sampled (tpe)"}
    plan = with_trainer(bench.plan, "ByEpochs")
    pilot, second = plan.make_variant(bench.combinations(pruned)[0]).cells
    assert bench.cells.result(pilot.key) is None
    assert not bench.cells.folder(second.key).exists(), "other seeds wait until the first one has survived"
    stopped_at = len(bench.cells.validations(pilot.key))
    assert stopped_at in (2, 6)  # one epoch or three, at two validations each

    run([pilot], bench.cells, devices=["cpu"], provenance={}, executor="here")
    assert bench.cells.result(pilot.key).is_finished
    steps = (bench.cells.folder(pilot.key) / "steps").read_text().split()
    assert steps == [str(step) for step in range(1, 19)], "no validation was trained twice"


def test_a_combination_that_is_known_is_answered_whatever_the_pruner_would_say(bench):
    for changes in Space.of(bench.plan).by_distance():
        for cell in bench.plan.make_variant(changes).cells:
            bench.cells.open(cell)
            value = searched.accuracy(cell.settings, cell.seed)
            bench.cells.write_result(result_of(cell, 0.5, val_accuracy=value))
    bench.search(FIRST + 6, prune="halving")
    assert {trial.state for trial in bench.study(prune="halving")} == {TrialState.COMPLETE}


def test_a_trial_says_where_its_runs_are(bench):
    begun = []
    bench.search(
        1,
        on_trial=lambda search, number, variant: begun.append((search, number, variant.name)),
        run_ids=lambda variant: {cell.seed: f"run of {cell.key}" for cell in variant.cells},
    )
    (trial,) = bench.study()
    assert [(number, name) for _, number, name in begun] == [(0, "baseline")]
    assert trial.user_attrs["mlflow runs"] == {seed: f"run of {key}" for seed, key in trial.user_attrs["cells"].items()}
