"""Changes that are code: commits, branches and patches, merged into the baseline's code; and the user's repository,
which nothing touches."""

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from own import train_study
from repository import OTHER_START, RATE, START, WIDTH, TinyRepository

from harness.api.work import plan_work
from harness.cli import cli
from harness.errors import StudyError
from harness.study.load import load_study


def keys(path: Path, **request):
    """Keys of the cells of seed 0, by variant."""
    plan = plan_work(path, store=path.parent / "mlruns", device="cpu", seeds=1, **request).plan
    return {variant.name: variant.cells[0].key for variant in plan.variants}


def problems(path: Path, **request) -> str:
    with pytest.raises(StudyError) as error:
        keys(path, **request)
    return str(error.value)


def test_a_commit_a_branch_a_patch_and_an_edit_by_hand_are_the_same_cells(tmp_path):
    repository = TinyRepository(tmp_path)
    commit = repository.commit("a comment first", {"mathematics.py": ("def ", "# advances\ndef ")})
    commit = repository.commit("twice the rate", RATE, onto=commit, branch="feature/rate")
    (tmp_path / "fix.diff").write_text(repository.git("diff", f"{commit}^", commit))
    ways = [
        {"commit": commit[:9]},
        {"branch": "feature/rate"},
        {"patch": "fix.diff"},
        {"commit": [f"{commit}^", commit]},
    ]

    found = [keys(repository.study(changes=[{"name": "rate", **way}]))["rate"] for way in ways]
    training = tmp_path / "training.py"
    path = repository.study()
    training.write_text(training.read_text().replace(*RATE["training.py"]))

    assert set(found) == {keys(path)["baseline"]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["function", "handled"])
def test_each_variant_runs_its_own_code_and_the_repository_stays_as_it_is(tmp_path, kind):
    repository = TinyRepository(tmp_path / "project", kind)
    helper = {
        "helping.py": "START = 1.0\n",
        "training.py": ("score = 0.0", "from helping import START\n    score = START"),
    }
    changes = [
        {"name": "rate", "commit": repository.commit("rate", RATE)},
        {"name": "start", "commit": repository.commit("start", helper), "overrides": {"steps": 2}},
        {"name": "broken", "commit": repository.commit("broken", {"mathematics.py": "import nothing_such\n"})},
        {"name": "short", "overrides": {"steps": 2}},
    ]
    path = repository.study(changes=changes)
    (tmp_path / "project" / "README.md").write_text("edited, not committed\n")
    before = repository.checksums()

    _, results = train_study(path, tmp_path / "store", seeds=(1,))

    # advance(): score * 0.9 + rate * draw, with rate 0.5 and draw 0.1: a tenth of what four steps sum up to.
    grown = 0.005 * (1 + 0.9 + 0.81 + 0.729)
    scores = {name: result.metrics["test/score"] for (name, _), result in results.items() if result.is_finished}
    expected = {"baseline": grown, "rate": 2 * grown, "start": 0.081 + 0.005 * 1.9, "short": 0.005 * 1.9}
    assert scores == {name: pytest.approx(score) for name, score in expected.items()}
    assert "nothing_such" in results["broken", 1].reason
    assert repository.checksums() == before


def test_changes_are_merged_whatever_their_order_and_the_same_code_is_one_cell(tmp_path):
    repository = TinyRepository(tmp_path)
    rate = repository.commit("rate", RATE)
    moved = {"mathematics.py": None, "numbers_.py": (tmp_path / "mathematics.py").read_text()}
    renamed = repository.commit(
        "a better name", {**moved, "training.py": ("import mathematics", "import numbers_ as mathematics")}
    )
    decay = repository.commit("decay", {"mathematics.py": ("0.9", "0.8")})
    changes = [{"name": name, "commit": it} for name, it in {"rate": rate, "renamed": renamed, "decay": decay}.items()]
    all_of_them = [{"name": "all", "changes": ["rate", "renamed", "decay"]}]
    request = {"designs": ("combinations",)}

    one = keys(repository.study(changes=changes, combinations=all_of_them), **request)["all"]
    other = keys(repository.study(changes=changes[::-1], combinations=all_of_them), **request)["all"]
    rebased = repository.commit("rate", RATE, onto=repository.commit("decay", {"mathematics.py": ("0.9", "0.8")}))
    rebased = repository.commit(
        "renamed",
        {
            "mathematics.py": None,
            "numbers_.py": moved["numbers_.py"].replace("0.9", "0.8"),
            "training.py": ("import mathematics", "import numbers_ as mathematics"),
        },
        onto=rebased,
    )

    assert one == other == keys(repository.study(commit=rebased))["baseline"]


def test_what_does_not_merge_is_named_pair_by_pair_and_designs_respect_it(tmp_path):
    repository = TinyRepository(tmp_path)
    start, other = repository.commit("start", START), repository.commit("other", OTHER_START)
    changes = [
        {"name": "rate", "commit": repository.commit("rate", RATE)},
        {"name": "start", "commit": start},
        {"name": "other", "commit": other},
    ]
    both = [{"name": "both", "changes": ["rate", "start", "other"]}]

    said = problems(repository.study(changes=changes, combinations=both))
    path = repository.study(changes=changes)
    pairs = plan_work(path, store=tmp_path / "mlruns", device="cpu", designs=("pairs",)).plan

    assert "'start' and 'other' do not merge: both edit the same lines of training.py" in said
    assert "'rate'" not in said
    assert {it.name for it in pairs.variants if len(it.changes) == 2} == {"rate+start", "rate+other"}
    assert "do not merge" in " ".join(pairs.notes)
    assert set(keys(path)) == {"baseline", "rate", "start", "other"}


def test_a_change_that_stands_on_others_needs_them(tmp_path):
    repository = TinyRepository(tmp_path)
    rate, start = repository.commit("rate", RATE), repository.commit("start", START)
    both = repository.commit("start", START, onto=rate)
    edits = {"training.py": ("score = 1.0", "score = 3.0 * rate")}
    more = repository.commit("more", edits, onto=both)
    more = repository.commit("yet more", {"training.py": ("rate = 2 * s.rate", "rate = 3 * s.rate")}, onto=more)
    pair = [f"{more}^", more]
    changes = [
        {"name": "more", "commit": pair, "needs": ["rate", "start"]},
        {"name": "rate", "commit": rate},
        {"name": "start", "commit": start},
    ]

    found = keys(repository.study(changes=changes))
    at_the_end = keys(repository.study(commit=more))["baseline"]
    lonely = problems(repository.study(changes=[{"name": "more", "commit": pair}]))

    assert set(found) == {"baseline", "rate", "start", "rate+start", "more+rate+start"}
    assert found["more+rate+start"] == at_the_end
    assert "'more' does not merge into the code of the baseline: its edit of training.py" in lonely
    assert "`needs:`" in lonely


def test_an_edit_of_what_is_fixed_is_refused_by_name(tmp_path):
    repository = TinyRepository(tmp_path)
    cheat = repository.commit("cheat", {"evaluation.py": ("score / 10", "score / 5"), **RATE})
    hidden = repository.commit("hide", {"evaluation/__init__.py": "def evaluate(score):\n    return score\n"})
    fair = repository.commit("fair", RATE)
    changes = [{"name": "cheat", "commit": cheat}, {"name": "hide", "commit": hidden}, {"name": "fair", "commit": fair}]

    said = problems(repository.study(changes=changes, fixed=["evaluation.py"]))
    slip = problems(repository.study(fixed=["evaluate.py", "/etc/**"]))

    assert f"change 'cheat': commit {cheat} edits evaluation.py, which is fixed (evaluation.py)" in said
    assert "change 'hide'" in said
    assert "evaluation/__init__.py, which is fixed" in said
    assert "'fair'" not in said
    assert "fixed: '/etc/**' reaches outside" in slip
    assert "'evaluate.py' matches no file" in problems(repository.study(fixed=["evaluate.py"]))
    assert set(keys(repository.study(changes=changes[2:], fixed=["eval*.py"]))) == {"baseline", "fair"}


def test_only_what_training_reads_counts(tmp_path):
    repository = TinyRepository(tmp_path)
    log = repository.commit("notes", {"README.md": "other notes\n"})
    comment = repository.commit("comment", {"mathematics.py": ("def ", "# comment\ndef ")})
    rate = repository.commit("rate", {**RATE, "README.md": "the rate\n"})
    width = repository.commit("width", {**WIDTH, "README.md": "the width\n"})

    said = problems(repository.study(changes=[{"name": "log", "commit": log}, {"name": "comment", "commit": comment}]))
    both = [{"name": "both", "changes": ["rate", "width"]}]
    changes = [{"name": "rate", "commit": rate}, {"name": "width", "commit": width}]
    found = keys(repository.study(changes=changes, combinations=both), designs=("combinations",))

    assert f"change 'log': commit {log} edits nothing that training reads" in said
    assert "change 'comment'" in said
    assert set(found) == {"baseline", "both"}  # although both edit the same line of README.md


def test_the_baselines_code_may_be_that_of_a_commit_whatever_lies_in_the_folder(tmp_path):
    repository = TinyRepository(tmp_path)
    rate = repository.commit("rate", RATE)
    later = repository.commit("width", WIDTH, onto=rate, branch="later")
    study = {"commit": rate[:8], "changes": [{"name": "width", "branch": "later"}]}
    clean = keys(repository.study(**study))

    (tmp_path / "mathematics.py").write_text("this is no Python")
    path = tmp_path / "own.yaml"

    assert keys(path) == clean
    assert clean["width"] == keys(_only(repository, commit=later))["baseline"]
    (note,) = load_study(path).trainer.notes[:1]
    assert note == f"sources: those of commit {later[:10]}"


def _only(repository: TinyRepository, **study) -> Path:
    """The study without the code that `TinyRepository.study` writes."""
    broken = (repository.folder / "mathematics.py").read_text()
    path = repository.study(**study)
    (repository.folder / "mathematics.py").write_text(broken)
    return path


def test_a_settings_model_is_that_of_the_baselines_commit(tmp_path):
    repository = TinyRepository(tmp_path)
    model = """\
        from dataclasses import dataclass

        @dataclass(frozen=True)
        class Settings:
            rate: float = 0.5
            steps: int = 4
        """
    commit = repository.commit("model", {"model.py": model})
    study = {"settings": "model:Settings", "baseline": {"steps": 3}, "commit": commit}

    settings = load_study(repository.study(**study)).baseline

    assert settings.tree() == {"rate": 0.5, "steps": 3}
    assert not (tmp_path / "model.py").exists()


WRONG = [
    ({"commit": "deadbee"}, "change 'it': 'deadbee' is no commit of the repository"),
    ({"commit": "--all"}, "'--all' is no commit"),
    ({"commit": "a\nb"}, "names no commit"),
    ({"commit": 1234567}, "commit: 1234567 is read as a number; put it in quotes"),
    ({"branch": "nowhere"}, "'nowhere' is no commit"),
    ({"patch": "none.diff"}, "change 'it': patch: "),
    ({"patch": "wrong.diff"}, "wrong.diff does not apply (patch failed: training.py:2"),
    ({"commit": "main", "branch": "main"}, "a change has one of commit, branch and patch"),
    ({"summary": "nothing"}, "changes[0].overrides: required, but missing"),
    ({"overrides": {}}, "overrides: at least one setting; or the change is code"),
]


@pytest.mark.parametrize(("code", "said"), WRONG, ids=[str(it) for it, _ in WRONG])
def test_code_that_cannot_be_a_change_is_refused_in_a_sentence(tmp_path, code, said):
    repository = TinyRepository(tmp_path)
    diff = "--- a/training.py\n+++ b/training.py\n@@ -2,1 +2,1 @@\n-no such line\n+another\n"
    (tmp_path / "wrong.diff").write_text(diff)

    assert said in problems(repository.study(changes=[{"name": "it", **code}]))


def test_a_merge_is_what_it_brings_to_its_first_parent(tmp_path):
    repository = TinyRepository(tmp_path)
    rate, width = repository.commit("rate", RATE), repository.commit("width", WIDTH)
    both = repository.commit("width", WIDTH, onto=rate)
    tree = repository.git("rev-parse", f"{both}^{{tree}}").strip()
    merge = repository.git("commit-tree", tree, "-p", rate, "-p", width, "-m", "merge").strip()

    found = keys(repository.study(changes=[{"name": "it", "commit": merge}, {"name": "rate", "commit": rate}]))

    assert found["it"] == keys(repository.study(changes=[{"name": "it", "commit": width}]))["it"]


def test_a_script_that_the_commit_lacks_is_the_folders_own_and_the_same_for_all(tmp_path):
    repository = TinyRepository(tmp_path, "script")
    lacking = repository.commit("before there was a script", {"script.py": None})
    helped = repository.commit("half", {"mathematics.py": ("0.9", "0.4")}, onto=lacking)
    brought = {"script.py": "print('another one')\n"}
    both = repository.commit("half, and a script", {"mathematics.py": ("0.9", "0.4"), **brought}, onto=lacking)
    alone = repository.commit("a script", brought, onto=lacking)
    changes = [{"name": "half", "commit": helped}, {"name": "both", "commit": both}]

    path = repository.study(commit=lacking, changes=changes[:1])
    found, notes = keys(path), load_study(path).trainer.notes
    with_both = keys(repository.study(commit=lacking, changes=changes[1:]))
    (tmp_path / "script.py").write_text((tmp_path / "script.py").read_text() + "print('edited')\n")
    edited = keys(path)

    assert with_both["both"] == found["half"] != found["baseline"]
    assert "sources: script.py of the folder, for all variants: the commit does not hold what is called" in notes
    assert {*edited.values()}.isdisjoint(found.values())
    said = problems(repository.study(commit=lacking, changes=[{"name": "brings", "commit": alone}]))
    assert "edits nothing that training reads" in said


def test_a_patch_needs_no_repository_and_a_commit_says_that_it_does(tmp_path):
    repository = TinyRepository(tmp_path / "there")
    commit = repository.commit("rate", RATE)
    diff = repository.git("diff", "main", commit)
    alone = TinyRepository(tmp_path / "alone")
    subprocess.run(["rm", "-r", str(tmp_path / "alone" / ".git")], check=True)
    (tmp_path / "alone" / "fix.diff").write_text(diff)

    patched = keys(alone.study(changes=[{"name": "rate", "patch": "fix.diff"}]))

    assert patched == keys(repository.study(changes=[{"name": "rate", "commit": commit}]))
    said = problems(alone.study(changes=[{"name": "rate", "commit": commit}]))
    assert "lies in no git repository" in said


def test_a_study_in_a_folder_of_a_repository_sees_that_folder_alone(tmp_path):
    outer = TinyRepository(tmp_path)
    inner = TinyRepository(tmp_path / "inner")
    subprocess.run(["rm", "-r", str(tmp_path / "inner" / ".git")], check=True)
    base = outer.commit("inner", {f"inner/{it.name}": it.read_text() for it in (tmp_path / "inner").iterdir()})
    edits = {"inner/training.py": RATE["training.py"], "training.py": WIDTH["training.py"]}
    commit = outer.commit("both", edits, onto=base)
    outer.git("checkout", "-q", "--detach", base)
    (tmp_path / "inner" / "fix.diff").write_text(outer.git("diff", base, commit))

    by_commit = keys(inner.study(changes=[{"name": "rate", "commit": commit}]))
    by_patch = keys(inner.study(changes=[{"name": "rate", "patch": "fix.diff"}]))

    alone = TinyRepository(tmp_path / "alone")
    expected = keys(alone.study(changes=[{"name": "rate", "commit": alone.commit("rate", RATE)}]))
    assert by_commit == by_patch == expected


def test_code_is_refused_where_it_is_pinned_or_the_trainer_has_none(tmp_path):
    repository = TinyRepository(tmp_path)
    commit = repository.commit("rate", RATE)
    pinned = {"function": "training:train", "sources": {"pinned": "v1"}}
    images = tmp_path / "images.yaml"
    images.write_text(f"changes: [{{name: it, commit: {commit}}}]\nfixed: [a.py]\n")

    said = problems(repository.study(trainer=pinned, changes=[{"name": "it", "commit": commit}]))
    fixed = problems(repository.study(trainer=pinned, fixed=["evaluation.py"]))

    assert "sources are pinned as 'v1', so no change can be code" in said
    assert "take out `commit:` and `fixed:`" in fixed
    assert "fixed: is about the code of a function or a command" in problems(images)
    images.write_text(f"changes: [{{name: it, commit: {commit}}}]\n")
    assert "the trainer images has no code of the study's own" in problems(images)


def test_what_is_written_out_plans_the_same_cells(tmp_path):
    repository = TinyRepository(tmp_path)
    rate = repository.commit("rate", RATE)
    more = repository.commit("more", {"training.py": ("rate = 2", "rate = 3")}, onto=rate)
    changes = [{"name": "rate", "commit": rate}, {"name": "more", "commit": more, "needs": "rate"}]
    path = repository.study(changes=changes, fixed=["evaluation.py"], commit="main")

    shown = CliRunner().invoke(cli, ["show", str(path)], catch_exceptions=False).output
    (tmp_path / "shown.yaml").write_text(shown)

    assert keys(tmp_path / "shown.yaml") == keys(path)
    assert "fixed: [evaluation.py]" in shown
    assert "needs: rate" in shown


def test_a_patch_merges_with_edits_of_its_context_and_applies_on_top_of_what_it_needs(tmp_path):
    repository = TinyRepository(tmp_path)
    rate = repository.commit("rate", RATE)
    both = repository.commit("width", WIDTH, onto=rate)
    more = repository.commit("more", {"training.py": ("rate = 2", "rate = 3")}, onto=both)
    width = repository.commit("width", WIDTH)
    (tmp_path / "width.diff").write_text(repository.git("diff", "main", width))  # three lines around hold the rate
    (tmp_path / "more.diff").write_text(repository.git("diff", both, more))
    changes = [
        {"name": "rate", "commit": rate},
        {"name": "width", "patch": "width.diff"},
        {"name": "more", "patch": "more.diff", "needs": ["rate", "width"]},
    ]

    found = keys(repository.study(changes=changes))
    pair = keys(tmp_path / "own.yaml", designs=("pairs",))["rate+width"]

    assert pair == keys(repository.study(commit=both))["baseline"]
    assert found["rate+width+more"] == keys(repository.study(commit=more))["baseline"]


def _rate(repository: TinyRepository, factor: int) -> str:
    return repository.commit(f"rate {factor}", {"training.py": ("rate = s.rate", f"rate = {factor} * s.rate")})
