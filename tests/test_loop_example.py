"""The example of a loop, end to end: forty commits of which it is known what each does."""

import subprocess
import sys
from pathlib import Path

import pytest
from repository import checksums

from harness.api.ablation import ablate
from harness.api.lineages import lineage_of_log
from harness.api.pruning import prune
from harness.api.studying import study_range

EXAMPLE = Path(__file__).parents[1] / "examples" / "loop"
sys.path.insert(0, str(EXAMPLE))

import build  # noqa: E402


@pytest.mark.ordeal
@pytest.mark.slow
def test_of_forty_commits_those_that_help_are_found_and_the_others_go(tmp_path):
    folder = tmp_path / "project"
    truths = {commit: it.truth for commit, it in build.build(folder).items()}
    before = checksums(folder, objects=False)
    request = {"store": tmp_path / "mlruns", "jobs": 2}

    found = study_range(
        study=folder / "loop.yaml", log=folder / "results.tsv", output=tmp_path / "commits.yaml", budget="800"
    )
    truth = {it.name: truths[it.commits[-1]] for it in found.history.changes}
    screened = ablate(found.path, **request)
    rows = lineage_of_log(found.path, folder / "results.tsv", store=tmp_path / "mlruns")
    pruned = prune(found.path, delta=0.02, **request)

    # What cannot be a change, and what does not stand alone.
    (left_out,) = found.history.left_out
    assert left_out[1] == "edits prepare.py, which is fixed: what measures stays the same"
    assert truths[left_out[0].commit] == "measures"
    assert {it.name: it.needs for it in found.history.changes if it.needs} == {
        "multiply-by-the-mean-s-share": ("average-the-last-steps",)
    }
    assert "changes 'smaller-steps' and 'a-step-of-5.02' do not merge" in " ".join(screened.work.plan.notes)
    assert (found.budget[0].design, found.budget[0].seeds, found.budget[0].num_cells) == ("screening", 10, 800)
    assert len(screened.work.plan.cells) == 800
    # What screening says of each, beside what it does.
    verdicts = {it.change: it.verdict for it in rows}
    proven = {name for name, verdict in verdicts.items() if verdict == "proven"}
    refuted = {name for name, verdict in verdicts.items() if verdict == "refuted"}
    assert len(proven) >= 4
    assert {truth[name] for name in proven} == {"helps"}
    assert {truth[name] for name in refuted} <= {"hurts"}
    # The loop kept all that help, and as many that do nothing; what is left has the same value.
    assert sum(truth[name] == "nothing" for name in found.history.kept) >= 5
    assert len(pruned.kept) <= 8
    assert pruned.best is not None
    assert pruned.best.p <= 0.05
    assert proven <= {*pruned.kept}
    commits = subprocess.run(
        ["git", "log", "--format=%s", "begin..pruned/commits"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert len(commits.stdout.splitlines()) == len(pruned.kept)
    after = checksums(folder, objects=False)
    assert {name for name in after if after[name] != before.get(name)} == {
        ".git/refs/heads/pruned/commits",
        ".git/logs/refs/heads/pruned/commits",
    }


def test_the_loop_makes_the_same_commits_every_time():
    assert len(build.PROPOSALS) == 40
    counted = {truth: sum(it.truth == truth for it in build.PROPOSALS) for truth in ("helps", "hurts", "measures")}
    assert counted == {"helps": 5, "hurts": 5, "measures": 1}
