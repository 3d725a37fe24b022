"""Two study runs beside each other, and the gate of a repository of models: real training, real commits."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from commands import harness
from own import write_study
from schemas import fitting
from scipy import stats
from synthetic import Numbers, synthetic_plan, synthetic_store

from harness.api.comparing import compare
from harness.cli import cli
from harness.cli.grid import Column, folded, print_grid
from harness.cli.screen import Screen
from harness.errors import ResultsError, StudyError
from harness.stats.between import between
from harness.store.load import results_table

PAIRS = {"batch-norm": ("batch-norm", "baseline"), "kernel-7": ("kernel-7", "baseline")}


def results(root, effects, *, seeds=8, noise=0.003, shift=0):
    """A study run whose cells are drawn around these effects; with `shift` its seeds are others."""
    plan = synthetic_plan(seeds=tuple(range(shift, shift + seeds)), profile="standard", only=("batch-norm", "kernel-7"))
    cells = synthetic_store(root, plan, Numbers(effects=effects, noise=noise))
    manifest = cells.manifest(plan.id)
    cells.write_manifest(replace(manifest, horizon=seeds))
    return results_table(cells, cells.manifest(plan.id))


def numbers(table, variant):
    mine = table[table["variant"] == variant].sort_values("seed")["test/accuracy"].to_numpy()
    return mine - table[table["variant"] == "baseline"].sort_values("seed")["test/accuracy"].to_numpy()


def other_draws(table, seed):
    """The same study run with other noise: as after another version of the code."""
    draws = np.random.default_rng(seed).normal(0, 0.002, len(table))
    found = table.assign(**{"test/accuracy": table["test/accuracy"] + draws})
    found.attrs.update(table.attrs)
    return found


def test_an_effect_that_changed_is_told_from_one_that_did_not(tmp_path):
    """Planted: batch-norm gives 3 points in both runs, kernel-7 costs 2 in the first and 6 in the second."""
    first = results(tmp_path / "a", {"batch-norm": 0.03, "kernel-7": -0.02})
    second = other_draws(results(tmp_path / "b", {"batch-norm": 0.03, "kernel-7": -0.06}), 1)

    found = between(first, second, PAIRS, delta=0.01)
    rows = found.table.set_index("change")

    assert found.common_seeds == tuple(range(8))
    by_hand = numbers(second, "kernel-7") - numbers(first, "kernel-7")  # within each seed
    interval = stats.ttest_1samp(by_hand, 0).confidence_interval(0.95)
    assert rows.loc["kernel-7", "difference"] == pytest.approx(by_hand.mean())
    assert (rows.loc["kernel-7", "low"], rows.loc["kernel-7", "high"]) == pytest.approx(tuple(interval))
    assert rows.loc["kernel-7", "p_adjusted"] == pytest.approx(2 / 2**8)
    assert rows["verdict"].to_dict() == {"batch-norm": "the same within the margin", "kernel-7": "worse in the second"}


def test_runs_without_common_seeds_are_compared_by_welch(tmp_path):
    first = results(tmp_path / "a", {"batch-norm": 0.03, "kernel-7": -0.02})
    second = results(tmp_path / "b", {"batch-norm": 0.06, "kernel-7": -0.02}, shift=20, seeds=9)

    found = between(first, second, PAIRS)
    rows = found.table.set_index("change")

    by_hand = stats.ttest_ind(numbers(second, "batch-norm"), numbers(first, "batch-norm"), equal_var=False)
    assert found.common_seeds == ()
    assert rows.loc["batch-norm", "p"] == pytest.approx(by_hand.pvalue)
    assert rows.loc["batch-norm", "p_adjusted"] == pytest.approx(2 * by_hand.pvalue)  # Holm, the smaller of two
    assert rows.loc["batch-norm", "low"] == pytest.approx(by_hand.confidence_interval(0.95).low)
    assert rows["verdict"].to_dict() == {"batch-norm": "better in the second", "kernel-7": "inconclusive"}


def test_a_run_compared_with_itself_has_changed_nothing(tmp_path):
    first = results(tmp_path, {"batch-norm": 0.03})
    found = between(first, first, PAIRS)
    assert (found.table["difference"] == 0).all()
    assert not found.table["verdict"].str.contains("second").any()


def test_runs_without_a_common_effect_or_metric_are_refused(tmp_path):
    first = results(tmp_path, {"batch-norm": 0.03})
    with pytest.raises(ResultsError, match="no comparison in common"):
        between(first, first, {})
    other = first.copy()
    other.attrs["manifest"] = replace(first.attrs["manifest"], metrics=SimpleMetrics())
    with pytest.raises(ResultsError, match="do not measure the same test/accuracy"):
        between(first, other, PAIRS)


class SimpleMetrics(SimpleNamespace):
    report = "test/score"

    def __contains__(self, name):
        return False


def test_compare_finds_both_runs_counts_the_looks_and_says_what_differs(tmp_path):
    results(tmp_path / "a", {"batch-norm": 0.03})
    table = results(tmp_path / "b", {"batch-norm": 0.03})
    run = table.attrs["manifest"].id
    path = tmp_path / "b" / "studies" / f"{run}.json"
    manifest = json.loads(path.read_text())
    manifest["fingerprints"] = {"data": "others"}
    manifest["comparisons"] = [it for it in manifest["comparisons"] if it["label"] != "kernel-7"]
    path.write_text(json.dumps(manifest))

    found = compare("task3", run, store=tmp_path / "a", second_store=tmp_path / "b")

    assert list(found.between.table["change"]) == ["batch-norm"]
    assert found.differing == ("other data: synthetic and others",)
    assert found.alone == {run: ()}  # both runs have one id: what the second lacks is not said twice
    both = ["task3", run, "--store", str(tmp_path / "a"), "--second-store", str(tmp_path / "b")]
    printed = CliRunner().invoke(cli, ["compare", *both, "--json"], catch_exceptions=False).stdout
    assert [it["change"] for it in fitting("compare", printed)["effects"]] == ["batch-norm"]
    for store in ("a", "b"):
        looks = json.loads((tmp_path / store / "studies" / f"{run}.json").read_text())["looks"]
        assert [it["seeds"] for it in looks] == [list(range(8))]
    with pytest.raises(ResultsError, match="both are study run"):
        compare("task3", run, store=tmp_path / "a")


# The gate


def training(score):
    """A training that scores so much, with a part that the seed gives and noise that each version of the code has."""
    return f"""
import random
import harness
def train(run: harness.Run) -> None:
    s = run.settings
    own = random.Random(f"{{run.seed}} {score}")
    run.log(1, **{{"val/score": 0.5}})
    if {score!r} == "broken" and run.seed == 2:
        raise ValueError("broken")
    value = 0.5 if {score!r} == "broken" else {score!r}
    run.finish(**{{"test/score": value + 0.05 * random.Random(run.seed).random() + s.rate * own.gauss(0, 0.02)}})
"""


STUDY = {"baseline": {"rate": 0.5, "steps": 4}, "changes": [{"name": "wide", "overrides": {"rate": 0.75}}]}


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository of a model whose `main` scores 0.80, and a store that the tests share, as a CI's cache."""
    root = tmp_path_factory.mktemp("gate")
    write_study(root / "repository" / "studies", function=training(0.80), **STUDY, profiles={"standard": {"seeds": 6}})
    git(root / "repository", "init", "-q", "-b", "main")
    git(root / "repository", "add", "-A")
    git(root / "repository", "commit", "-qm", "first")
    return root


def run_gate(root, score, *more, ref="main"):
    """Exit code, output and the comment of `harness gate`, with the code as it would be after an edit."""
    studies = root / "repository" / "studies"
    (studies / "training.py").write_text(training(score))
    command = ["gate", "--study", "studies/own.yaml", "--baseline-ref", ref, "--max-drop", "0.5"]
    command += ["--store", root / "store", "--device", "cpu", "--jobs", "2", "--markdown", root / "comment.md"]
    (root / "comment.md").unlink(missing_ok=True)
    done = harness(*command, *more, cwd=root / "repository")
    comment = (root / "comment.md").read_text() if (root / "comment.md").exists() else ""
    return done.returncode, " ".join((done.stdout + done.stderr).split()), comment


@pytest.mark.ordeal
@pytest.mark.slow
def test_a_commit_that_lowers_the_score_fails_one_that_does_not_passes_and_one_that_cannot_be_told_says_so(repository):
    code, said, comment = run_gate(repository, 0.75)
    assert (code, "own FAILS. It is worse by more than 0.50 points: by" in said) == (1, True), said
    assert comment.startswith("### `own`: FAILS\n")
    assert "| `main` (" in comment

    code, said, comment = run_gate(repository, 0.83)
    assert (code, "own passes. Worse by 0.50 points or more is excluded: it has not got worse." in said) == (0, True), (
        said
    )
    assert "6 done, 0 to train" in said  # of main: nothing is trained twice

    code, said, _ = run_gate(repository, 0.802, "--seeds", "3")
    assert code == 3, said
    assert "3 seeds cannot tell whether it is worse by 0.50 points or more." in said
    assert "seeds would decide, if the estimate holds: --seeds" in said, said

    code, said, _ = run_gate(repository, 0.802, "--seeds", "3", "--json")
    printed = "{" + said.partition("{")[2].rpartition("}")[0] + "}"
    assert fitting("gate", printed)["verdict"] == "undecided"

    code, said, _ = run_gate(repository, "broken")
    assert (code, "This code fails where main does not: seed 2." in said) == (1, True), said


@pytest.mark.slow
def test_an_edit_that_training_does_not_read_passes_without_training(repository):
    (repository / "repository" / "README").write_text("more words\n")
    code, said, _ = run_gate(repository, 0.80)
    assert (code, "both train the very same cells" in said) == (0, True), said
    head = git(repository / "repository", "rev-parse", "main")
    recorded = {json.loads(line)["provenance"]["commit"] for line in started(repository / "store")}
    assert recorded == {head}
    assert git(repository / "repository", "worktree", "list").count("\n") == 0


def started(store):
    for path in (store / "cells").glob("*/journal.jsonl"):
        yield from (line for line in path.read_text().splitlines() if '"started"' in line)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--baseline-ref", "nowhere"], "--baseline-ref nowhere: no such commit in"),
        (["--variant", "wid"], "wid"),
        (["--study", "task3"], "task3: there is no such file; gate takes the path of a study in a git checkout."),
        (["--baseline-ref", "--output=x"], "no such commit in"),
    ],
)
def test_what_is_wrong_with_the_request_is_said(repository, more, message):
    code, said, _ = run_gate(repository, 0.80, *more)
    assert code == 2
    assert message in said
    assert "Traceback" not in said


def test_a_study_outside_of_a_checkout_has_nothing_to_be_compared_with(tmp_path):
    from harness.api.gating import gate

    with pytest.raises(StudyError, match="lies in no git checkout"):
        gate(write_study(tmp_path), baseline_ref="main", max_drop=0.5, store=tmp_path / "store")


# Tables of any width


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_grid_breaks_between_words_and_never_within_one_or_a_number(width):
    rows = [
        (
            "optimizer-adamax+filters-64-128-256+batch-norm",
            "Adamax with learning rate 1e-3 instead of SGD",
            "+1.20 [-0.10, +2.50]",
            "10/10",
        )
    ]
    columns = [
        Column("variant", False),
        Column("what it is", False),
        Column("effect"),
        Column("done", is_optional=True),
    ]
    console = Screen(width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        print_grid(console, columns, rows)
    lines = captured.get().splitlines()
    words = {word for row in rows for cell in row for part in cell.split() for word in part.replace("+", "+ ").split()}
    assert max(map(len, lines)) <= width
    assert "+1.20 [-0.10, +2.50]" in captured.get()
    assert ("A wider window also shows: done." in captured.get()) == (width == 60)
    for word in words - {"+", "1.20", "2.50]", "10/10"}:
        assert any(word in line for line in lines), (word, lines)


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (44, ["wide-head  +3.19 [+3.07, +3.31]  improves"]),  # p is left out before an interval is broken
        (34, ["wide-head  +3.19 [+3.07,  improves", "                  +3.31]"]),
        (24, ["wide-     +3.19  improves", "head    [+3.07,", "         +3.31]"]),
    ],
)
def test_an_interval_is_broken_where_leaving_columns_out_is_not_enough(width, lines):
    columns = [Column("change", False), Column("effect", may_break=True), Column("p", is_optional=True)]
    console = Screen(width=width, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        row = ("wide-head", "+3.19 [+3.07, +3.31]", "<0.0001", "improves")
        print_grid(console, [*columns, Column("verdict", False)], [row], styles=["green"])
    told = [line for line in captured.get().splitlines() if line.startswith("\x1b[32m")]
    assert told == [f"\x1b[32m{line}\x1b[0m" for line in lines]


def test_a_word_that_is_longer_than_the_column_stays_whole():
    assert folded("a averyverylongword b", 5) == ["a", "averyverylongword", "b"]
    assert folded("one+two+three four", 8) == ["one+two+", "three", "four"]
    assert folded("batch+b +1.5 1e+05", 30) == ["batch+b +1.5 1e+05"]
    assert folded("wide+3x3 1e+05", 6) == ["wide+", "3x3", "1e+05"]
    assert folded("batch-norm 1e-05 2-4 --study", 6) == ["batch-", "norm", "1e-05", "2-4", "--study"]
    assert folded("", 5) == [""]
