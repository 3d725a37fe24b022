"""`harness judge` and `harness lineage`: what is kept, given up, answered from the store, promoted; what it costs."""

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from own import write_study
from repository import RATE, START, WIDTH, TinyRepository

from harness.api.judging import champion_estimate, judge
from harness.api.lineages import champion_lines, line_figure, lineage
from harness.api.work import prepare
from harness.cli import cli
from harness.errors import ResultsError, StudyError
from harness.execution.here import run_one
from harness.metrics import Metric
from harness.stats.online import (
    elond_level,
    judge_improvements,
    least_seeds,
    log_e_process,
    most_after,
    weight,
)
from harness.store.cells import Cells

# gain: of one run's noise; it fails where the gain is beyond 100, and never reads `unread`.
NOISY = """
import random
import subprocess
import sys
import harness

def train(run):
    gain, luck = run.settings.gain, run.settings.luck
    if gain > 100:
        raise ValueError("exploded")
    score = gain + random.Random(f"{run.seed} {luck}").gauss(0, 1)
    run.log(1, **{"val/score": score})
    run.finish(**{"test/score": score})
"""
METRIC = Metric("val/score", "maximize")
METRICS = {"val/score": {"goal": "maximize"}, "test/score": {"goal": "maximize"}}


@pytest.fixture
def asked(tmp_path):
    """The request of a line on a noisy function."""
    baseline = {"gain": 0.0, "luck": 0, "unread": 1}
    path = write_study(tmp_path / "own", function=NOISY, baseline=baseline, metrics=METRICS, changes=[])
    return {"study": path, "store": tmp_path / "mlruns", "executor": "here", "device": "cpu"}


@pytest.mark.ordeal
@pytest.mark.slow
def test_a_line_from_its_first_candidate_to_its_table(asked):
    def judged(**change):
        options = {key: change.pop(key) for key in ("seeds", "rule", "mde", "promote") if key in change}
        return judge(**asked, change=change, **options)

    better = judged(gain=3.0, luck=1, promote=True)
    again = judged(gain=3.0, luck=1, promote=True)
    worse = judged(gain=-3.0, luck=2, seeds=30)
    useless = judged(luck=3, mde=2.0)
    broken = judged(gain=101.0)
    same = judged(gain=3.0)
    few = judged(gain=4.5, luck=4, seeds=4)
    more = judged(gain=4.5, luck=4, seeds=40)
    lucky = judged(luck=6, gain=3.1, rule="explore", promote=True)
    found, cells = lineage(asked["study"], store=asked["store"]), Cells(asked["store"])

    assert (better.proposal.verdict, better.proposal.reason, better.champion.number) == ("keep", "better", 1)
    assert better.proposal.gain == pytest.approx(3, abs=2)
    assert better.num_cells == 2 * better.proposal.num_seeds  # one after another: no cell beyond the verdict
    assert better.estimate is not None
    fresh = range(better.champion.first_seed, better.champion.first_seed + 4)
    assert min(fresh) > max(seed for it in Cells(asked["store"]).manifests().values() for seed in
                            it.variant("champion-0").cells)  # fmt: skip
    assert better.estimate[1] == 4
    assert (again.proposal, again.is_repeated, again.num_cells) == (better.proposal, True, 0)
    assert (worse.proposal.verdict, worse.proposal.reason, worse.proposal.champion) == ("discard", "worse", 1)
    assert (useless.proposal.verdict, useless.proposal.reason) == ("discard", "too small to matter")
    assert broken.proposal.verdict == "discard"
    assert broken.proposal.reason.startswith("it fails: seed ")
    assert "exploded" in broken.proposal.reason
    assert broken.proposal.num_seeds == 0
    assert (same.proposal.verdict, same.proposal.number, same.num_cells) == ("discard", 0, 0)
    assert (few.proposal.verdict, more.proposal.verdict) == ("undecided", "keep")
    assert few.proposal.number == more.proposal.number
    assert few.proposal.level == more.proposal.level
    assert lucky.proposal.level == 1
    assert "of all that this line keeps, 5% at most" in better.price
    assert "one run a proposal" in lucky.price
    # The level falls from one proposal to the next, and rises with what was kept: e-LOND.
    of_stream = [better, worse, useless, broken, few]
    expected = [elond_level(0.05, number, kept) for number, kept in ((1, 0), (2, 1), (3, 1), (4, 1), (5, 1))]
    assert [it.proposal.level for it in of_stream] == pytest.approx(expected)
    verdicts = {it.change: it.verdict for it in found.steps}
    assert list(verdicts.values())[:4] == ["proven", "refuted", "unproven", "refuted"]
    assert verdicts[more.proposal.name] == "proven"
    if lucky.proposal.promoted:
        assert verdicts[lucky.proposal.name] == "unproven"
    figure = line_figure(found)
    assert figure.start == pytest.approx(champion_estimate(cells, found.line, found.line.champions[0], METRIC)[0])
    assert figure.levels[0] == pytest.approx(better.estimate[0])
    assert [it.verdict for it in figure.branches[:4]] == ["proven", "refuted", "unproven", "refuted"]
    assert figure.branches[1].reached.mean == pytest.approx(better.estimate[0] + worse.proposal.gain)
    assert figure.branches[1].reached.low < figure.branches[1].reached.mean < figure.branches[1].level
    with pytest.raises(StudyError, match="never reads"):
        raise StudyError(judged(unread=2).proposal.reason)


@pytest.mark.slow
def test_seeds_on_which_a_candidate_was_explored_do_not_count_for_it(asked):
    """It may have been proposed for them: what looked better on one seed begins with a lucky one otherwise."""
    explored = judge(**asked, change={"gain": 3.0}, rule="explore")
    judged = judge(**asked, change={"gain": 3.0}, rule="each")
    goes_on = judge(**asked, change={"gain": 3.0}, rule="each", seeds=40)

    first = explored.champion.first_seed
    assert [it.proposal.first_seed for it in (explored, judged, goes_on)] == [first, first + 1, first + 1]
    assert judged.num_cells == 2 * judged.proposal.num_seeds


@pytest.mark.slow
def test_a_seed_before_one_that_was_seen_does_not_count_either(asked):
    """Several cells train at once, so that what was stopped leaves holes."""
    seen = judge(**asked, change={"gain": 3.0}, rule="each")
    cells = Cells(asked["store"])
    name = next(it.name for it in cells.manifests()["own-standard-main"].variants if it.name.startswith("gain"))
    first = seen.proposal.first_seed
    hole = cells.manifests()["own-standard-main"].variant(name).cells[first + 1]
    (cells.folder(hole) / "result.json").unlink()
    judged = judge(**asked, change={"gain": 3.0}, rule="stream")
    assert judged.proposal.first_seed == first + seen.proposal.num_seeds


@pytest.mark.slow
def test_a_line_whose_study_run_was_lost_gets_it_again_and_nothing_is_trained(asked):
    judge(**asked, change={"gain": 3.0}, rule="explore")
    manifest = Cells(asked["store"]).root / "studies" / "own-standard-main.json"
    manifest.unlink()
    again = judge(**asked, change={"gain": 3.0}, rule="explore")
    assert (again.is_repeated, again.num_cells) == (True, 0)
    assert manifest.exists()


@pytest.mark.slow
def test_a_report_draws_no_line_without_a_number_and_minds_no_other_line_that_is_damaged(asked):
    judge(**asked, change={"gain": 101.0}, rule="explore")  # fails on its first seed
    cells = Cells(asked["store"])
    (cells.root / "lines" / "other.jsonl").write_text('{"event": "begun"}\n')
    assert champion_lines(cells, cells.manifests()["own-standard-main"]) == []


@pytest.mark.slow
@pytest.mark.ordeal
def test_a_script_without_a_main_block_is_told_so_and_does_not_hang(asked):
    script, (study, store) = asked["store"].parent / "loop.py", (str(asked["study"]), str(asked["store"]))
    call = f"judge({study!r}, change={{'gain': 3.0}}, store={store!r}, device='cpu', jobs=2)"
    script.write_text(f"from harness.api.judging import judge\n{call}\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert "below `if __name__ == '__main__':`" in done.stderr


@pytest.mark.slow
def test_a_candidate_fails_only_where_the_champion_does_not(tmp_path, asked):
    """Its cell ended first: what becomes of the champion's is waited for."""
    path = write_study(
        tmp_path / "bad", function=NOISY, metrics=METRICS, changes=[], baseline={"gain": 101.0, "luck": 0}
    )

    def train_candidate(work, todo, expected):
        prepare(work, todo)
        for cell in todo:
            if cell.settings.tree()["gain"] == 102.0:
                run_one(cell, work.cells, device="cpu", provenance={})

    found = judge(**asked | {"study": path}, change={"gain": 102.0}, seeds=1, before_training=train_candidate)
    assert (found.proposal.verdict, found.proposal.num_seeds) == ("undecided", 0)
    assert found.proposal.reason == "not enough seeds ended; the champion fails: seed 0: ValueError: exploded"


@pytest.mark.ordeal
@pytest.mark.slow
def test_the_command_decides_as_the_functions_that_benchmarks_simulate(asked):
    """A stream of eight; the numbers that the function gives are drawn here once more."""

    def score(seed, gain, luck):
        return gain + random.Random(f"{seed} {luck}").gauss(0, 1)

    held, first, kept = (0.0, 0), 0, 0
    for number, gain in enumerate((0.0, 2.5, 0.0, 0.2, 6.0, -2.0, 6.1, 9.0), start=1):
        found = judge(**asked, change={"gain": gain, "luck": number}, mde=0.5, promote=True)
        level = elond_level(0.05, number, kept)
        most = max(12, 2 * least_seeds(level))
        seeds = range(first, first + most)
        improvements = np.array([score(it, gain, number) - score(it, *held) for it in seeds])
        expected = judge_improvements(improvements, level, most=most, smallest=0.5)
        it = found.proposal
        assert (it.verdict, it.reason, it.num_seeds) == (expected.verdict, expected.reason, expected.num_seeds)
        assert it.log_e == pytest.approx(expected.log_e)
        if it.verdict == "keep":
            held, first, kept = (gain, number), found.champion.first_seed, kept + 1
            fresh = [score(seed, *held) for seed in range(first, first + 4)]
            assert found.estimate == pytest.approx((np.mean(fresh), 4, np.std(fresh, ddof=1) / 2))
    assert kept >= 2


@pytest.mark.slow
def test_what_a_study_reports_is_neither_decided_by_nor_shown(tmp_path, asked):
    """Here it says the contrary of the metric that selects."""
    worse = NOISY.replace('"test/score": score', '"test/score": -777.0 - score')
    path = write_study(tmp_path / "two", function=worse, metrics=METRICS, changes=[], baseline={"gain": 0.0, "luck": 0})
    found = judge(**asked | {"study": path}, change={"gain": 5.0}, rule="explore", promote=True)
    options = ["--study", str(path), "--store", str(asked["store"])]
    said = [
        CliRunner().invoke(cli, ["judge", *options, "--set", "gain=5.0", "--explore", *it]) for it in ([], ["--json"])
    ]
    said += [CliRunner().invoke(cli, ["lineage", *options, *it]) for it in ([], ["--json"])]

    assert (found.proposal.verdict, found.metric.name) == ("keep", "val/score")
    assert found.proposal.gain > 0
    for it in said:
        assert it.exit_code == 0
        assert "test" not in it.output.replace(str(tmp_path), "")
    assert "1 proposal looked at validation score" in " ".join(said[2].output.split())


@pytest.fixture
def repository(tmp_path):
    made = TinyRepository(tmp_path / "project", fixed=["evaluation.py"])
    made.asked = {"study": tmp_path / "project" / "own.yaml", "store": tmp_path / "mlruns", "executor": "here"}
    return made


@pytest.mark.ordeal
@pytest.mark.slow
def test_candidates_are_commits_branches_patches_and_the_working_tree(repository, monkeypatch, tmp_path):
    explore = {**repository.asked, "device": "cpu", "rule": "explore"}
    rate = repository.commit("Double the rate", RATE)
    wide = repository.commit("Wider", WIDTH, onto=rate, branch="wide")
    cheat = repository.commit("Score more", {"evaluation.py": ("/ 10", "/ 5")})
    (tmp_path / "start.diff").write_text(repository.git("diff", "main", repository.commit("start", START)))
    before = repository.checksums()

    first = judge(candidate=str(tmp_path / "start.diff"), champion="main", promote=True, **explore)
    (tmp_path / "start.diff").unlink()
    second = judge(candidate=rate[:9], promote=True, **explore)
    third = judge(candidate="wide", promote=True, **explore)
    again = judge(candidate="wide", promote=True, **explore)
    with pytest.raises(StudyError, match=r"'score-more': commit .* edits evaluation.py, which is fixed"):
        judge(candidate=cheat, **explore)
    with pytest.raises(StudyError, match=r"is part of .{10}, where the line began"):
        judge(candidate=repository.git("rev-parse", "main").strip(), **explore)
    assert repository.checksums() == before
    training = repository.folder / "training.py"
    training.write_text(training.read_text().replace("s.steps + 1", "s.steps + 2"))
    monkeypatch.chdir(repository.folder)
    edited = repository.checksums()
    fourth = judge(candidate=".", promote=True, **explore)
    assert repository.checksums() == edited

    assert (again.is_repeated, again.proposal) == (True, third.proposal)  # though it adds nothing any more
    assert first.line.base == repository.base
    assert [it.champion.number for it in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert [it.get("commit") for it in fourth.champion.entries] == [
        None,
        [rate],
        [wide],
        None,
    ]  # the branch without what is held
    found = lineage(repository.asked["study"], store=repository.asked["store"])
    assert [it.champion for it in found.steps] == [1, 2, 3, 4]
    assert {it.verdict for it in found.steps} == {"unproven"}


WRONG = [
    ({}, "nothing to judge: name a commit, a branch, a patch, `.`, or settings"),
    ({"candidate": "nowhere"}, "'nowhere' is no commit"),
    ({"candidate": "no.diff"}, "no.diff: cannot be read"),
    ({"candidate": "."}, "the working tree adds nothing to HEAD"),
    ({"change": {"speed": 1}}, "unknown setting 'speed'"),
    ({"change": {"rate": 1.0}, "line": "No line"}, "--line 'No line': expected small letters"),
    ({"change": {"rate": 1.0}, "alpha": 0.0}, "--alpha 0: expected a level between 0 and 1"),
    ({"change": {"rate": 1.0}, "rule": "always"}, "--level 'always': expected one of stream, each, explore"),
]


@pytest.mark.parametrize(("request_", "said"), WRONG)
def test_what_cannot_be_judged_is_refused_and_begins_no_line(repository, request_, said, monkeypatch):
    monkeypatch.chdir(repository.folder)
    with pytest.raises(StudyError) as error:
        judge(**repository.asked, **request_)
    assert said in str(error.value)
    assert not (repository.asked["store"] / "lines").is_dir() or not list(
        (repository.asked["store"] / "lines").glob("*.jsonl")
    )


@pytest.mark.slow
def test_a_line_holds_what_it_declared(asked):
    judge(**asked, change={"gain": 5.0}, rule="explore")
    with pytest.raises(StudyError, match=r"--alpha 0.01: line own-standard-main declared 0.05"):
        judge(**asked, change={"gain": 6.0}, alpha=0.01)
    study = asked["study"]
    study.write_text(study.read_text().replace('"luck": 0', '"luck": 7'))
    with pytest.raises(StudyError, match="began with another baseline"):
        judge(**asked, change={"gain": 6.0})
    with pytest.raises(ResultsError, match="no line own-standard-other; there is own-standard-main"):
        lineage(study, line="other", store=asked["store"])


@pytest.mark.slow
def test_a_line_is_no_run_of_its_study_and_goes_with_it(asked):
    from harness.api.stores import delete, deletion
    from harness.store.load import find_manifest
    from harness.store.unused import garbage

    found = judge(**asked, change={"gain": 5.0}, rule="explore")
    cells = Cells(asked["store"])
    with pytest.raises(ResultsError, match="no results of study 'own'"):
        find_manifest(cells, "own")
    manifest = find_manifest(cells, found.line.id)
    assert manifest.belongs_to == found.line.study_run
    assert [it.name for it in champion_lines(cells, manifest)] == [found.line.id]
    assert [it.name for it in champion_lines(cells, replace(manifest, id=found.line.study_run))] == [found.line.id]
    assert champion_lines(cells, replace(manifest, id="another")) == []
    assert not [it for it in garbage(cells) if it.key]
    delete(deletion("own", store=asked["store"]))
    assert cells.all_keys() == []
    assert not list((asked["store"] / "lines").iterdir())


@pytest.mark.slow
def test_a_judge_that_was_killed_goes_on_with_the_same_number(asked, monkeypatch):
    from harness.api import judging

    def dies(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(judging, "train_work", dies)
        with pytest.raises(KeyboardInterrupt):
            judge(**asked, change={"gain": 5.0})
    found = judge(**asked, change={"gain": 5.0})
    assert (found.proposal.number, found.proposal.verdict, found.is_repeated) == (1, "keep", False)
    with monkeypatch.context() as broken:  # after the promotion, with none of the champion's own cells trained
        broken.setattr(judging, "train_work", dies)
        with pytest.raises(KeyboardInterrupt):
            judge(**asked, change={"gain": 5.0}, promote=True)
    found = judge(**asked, change={"gain": 5.0}, promote=True)
    assert (found.is_repeated, found.champion.number, found.estimate[1]) == (True, 1, 4)
    assert len(found.line.champions) == 2


@pytest.mark.slow
def test_the_command_says_that_it_judged_before(asked):
    options = ["--study", str(asked["study"]), "--store", str(asked["store"])]
    said = [
        CliRunner().invoke(cli, ["judge", *options, "--device", "cpu", "--set", "gain=4", "--explore"]) for _ in "ab"
    ]
    table = CliRunner().invoke(cli, ["lineage", *options])
    assert [it.exit_code for it in said] == [0, 0]
    assert ["It was judged before; nothing was trained." in it.output for it in said] == [False, True]
    assert "gain-4" in table.output


@pytest.mark.slow
def test_an_e_process_rarely_reaches_the_level_however_often_one_looks():
    improvements = np.random.default_rng(0).normal(size=(20_000, 60))
    for level in (0.05, 0.01):
        reached = (log_e_process(improvements) >= -np.log(level)).any(axis=1).mean()
        assert reached <= level + 3 * (level * (1 - level) / 20_000) ** 0.5
    left = np.random.default_rng(1).normal(-0.2, 1, size=(20_000, 60))
    assert (log_e_process(left) >= -np.log(0.05)).any(axis=1).mean() < 0.015


def test_an_e_process_is_what_its_formula_says():
    # One difference: d / r = 1, so that each factor is exp(l) / cosh(l) = 2 / (1 + exp(-2 l)).
    shifts = np.array([0.4, 0.8, 1.2, 2.0, 3.5])
    bets = shifts * np.sqrt(1 + shifts**2)
    assert log_e_process(np.array([0.3]))[0] == pytest.approx(np.log((2 / (1 + np.exp(-2 * bets))).mean()))
    assert log_e_process(np.array([0.0, 0.0])).tolist() == [0.0, 0.0]
    assert most_after(least_seeds(0.001)) >= np.log(1000) > most_after(least_seeds(0.001) - 1)


def test_a_stream_spends_its_level_and_no_more():
    assert sum(map(weight, range(1, 100_000))) == pytest.approx(1, abs=0.001)
    assert sum(map(weight, range(1, 100_000))) < 1
    assert elond_level(0.05, 7, 3) == pytest.approx(4 * elond_level(0.05, 7, 0))


def test_each_reason_decides_at_the_first_look_that_has_it():
    def judged(*improvements, **more):
        found = judge_improvements(np.array(improvements, dtype=float), 0.05, **{"most": 12, **more})
        return found.verdict, found.reason, found.num_seeds

    assert judged(1, 1, 1, 1, 1, -9, -9) == ("keep", "better", 5)
    assert judged(-1, -1, -1, -1, -1, 9, 9, most=40) == ("discard", "worse", 5)
    assert judged(-1, -2, -1, -2)[:2] == ("discard", "no better so far")
    assert judged(1, -1, 1, -1, 1.1, -1, 1, -1, 1, -1)[:2] == ("undecided", "not enough seeds")
    assert judged(-1, -1, 1, -1, 1, -1, 1, -1, 1, -1)[:2] == ("discard", "no better so far")
    assert judged(-1, -2, -1, -2, smallest=0.1) == ("discard", "too small to matter", 3)
    assert judged(0, 0, 0, 0) == ("discard", "the same numbers", 3)
    assert judged(0.1, -0.1, 0.15, -0.1, smallest=0.5) == ("discard", "too small to matter", 3)
    assert judged(1, -1, 1, -1) == ("undecided", "", 4)
    assert judged() == ("undecided", "", 0)


@pytest.mark.slow
def test_a_champion_is_confirmed_once_by_the_metric_that_no_proposal_saw(asked):
    """What is reported goes the other way here: judged better, reported worse."""
    folder = asked["study"].parent
    (folder / "training.py").write_text(NOISY.replace('"test/score": score', '"test/score": -score'))
    where = ["--study", str(asked["study"]), "--store", str(asked["store"]), "--device", "cpu"]

    def confirmed(*more):
        return CliRunner().invoke(cli, ["confirm", *where, "--executor", "here", "--line", "main", *more])

    assert "there is none. `harness judge` begins one" in confirmed().output
    judge(**asked, change={"gain": 0.0, "luck": 1})
    assert "nothing was promoted yet" in confirmed().output
    judge(**asked, change={"gain": 4.0, "luck": 1}, promote=True)
    seen = Cells(asked["store"]).seeds()
    few, wrong = confirmed("--seeds", "3"), confirmed("--seeds", "8", "--only", "x")
    found = confirmed("--seeds", "8")
    again, other = confirmed(), confirmed("--seeds", "9")

    assert "takes at least 7 seeds, whatever they show. Nothing was trained" in few.output.replace("\n", " ")
    assert "--only: a line has its own baseline and changes" in wrong.output
    assert found.exit_code == 0, found.output
    assert "Refuted: it is worse. champion-1 against baseline on 8 fresh seeds" in found.output
    assert "0 to train" in again.output
    assert "It is made once" in other.output
    (made,) = (it for it in Cells(asked["store"]).manifests().values() if it.confirms)
    assert (made.confirms, made.winner, made.outcome) == ("own-standard-main", "champion-1", "refuted")
    assert not {*made.variant("baseline").cells} & {*seen}
    assert [it.champion for it in lineage(asked["study"], store=asked["store"]).steps] == [0, 1]
