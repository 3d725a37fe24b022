"""`harness study`: a range of commits as a study."""

import json

import pytest
from click.testing import CliRunner
from own import train_study
from repository import OTHER_START, RATE, START, WIDTH, TinyRepository

from harness.api.studying import study_range
from harness.api.work import plan_work
from harness.cli import cli
from harness.errors import HarnessError
from harness.study.load import load_study
from harness.study.yaml_file import read_yaml


class History(TinyRepository):
    """A repository whose `main` grows commit by commit."""

    def grow(self, message: str, edits, *, onto: str = "main") -> str:
        made = self.commit(message, edits, onto=onto)
        self.git("update-ref", "refs/heads/main", made)
        self.git("reset", "-q", "--hard")
        return made

    def merge(self, side: str) -> str:
        self.git("-c", "user.name=A", "-c", "user.email=a@b", "merge", "-q", "--no-ff", "-m", "Merge a side", side)
        return self.git("rev-parse", "HEAD").strip()

    def revert(self, commit: str) -> str:
        self.git("-c", "user.name=A", "-c", "user.email=a@b", "revert", "--no-edit", commit)
        return self.git("rev-parse", "HEAD").strip()


@pytest.fixture
def lived(tmp_path):
    """A history with one of everything; commits by a word."""
    repository = History(tmp_path / "project", fixed=["evaluation.py"])
    made = {"rate": repository.grow("Double the rate!", RATE)}
    made["notes"] = repository.grow("Notes", {"README.md": "notes\n"})
    made["start"] = repository.grow("Start at 1", START)
    made["more"] = repository.grow("Start at 3, says the rate", {"training.py": ("score = 1.0", "score = 3.0 * rate")})
    made["cheat"] = repository.grow("Score twice as much", {"evaluation.py": ("/ 10", "/ 5")})
    made["helper"] = repository.grow("A helper for later", {"helping.py": "def boost(score):\n    return score + 1\n"})
    made["mistake"] = repository.grow("A mistake", {"mathematics.py": ("0.9", "0.1")})
    made["revert"] = repository.revert(made["mistake"])
    made["side"] = repository.commit("Wider", WIDTH)
    made["define"] = repository.grow(
        "Halve: a function", {"mathematics.py": ("def adv", "def half(x):\n    return x / 2\n\n\ndef adv")}
    )
    made["merge"] = repository.merge(made["side"])
    boost = [("import mathematics", "import mathematics\nfrom helping import boost"), ("(score)", "(boost(score))")]
    made["boost"] = repository.grow("Boost the score", {"training.py": boost})
    made["use"] = repository.grow("Halve the end", {"training.py": ("boost(score)", "mathematics.half(boost(score))")})
    return repository, made


def test_each_commit_is_a_change_with_what_it_needs_or_is_left_out_with_the_reason(lived, tmp_path):
    repository, made = lived
    before = repository.checksums()

    found = study_range(f"{repository.base}..main", repository.folder / "own.yaml", output=tmp_path / "commits.yaml")

    changes = {it.name: (it.commits, it.needs) for it in found.history.changes}
    assert changes == {
        "double-the-rate": ((made["rate"],), ()),
        "start-at-1": ((made["start"],), ()),
        "start-at-3-says-the-rate": ((made["more"],), ("start-at-1",)),
        "wider": ((made["side"],), ()),
        "boost-the-score": ((made["helper"], made["boost"]), ()),
        "halve-a-function": ((made["define"],), ()),
        "halve-the-end": ((made["use"],), ("halve-a-function", "boost-the-score")),
    }
    reasons = {it.commit: why for it, why in found.history.left_out}
    assert reasons == {
        made["notes"]: "edits nothing that training reads",
        made["cheat"]: "edits evaluation.py, which is fixed: what measures stays the same",
        made["mistake"]: f"is reverted by {made['revert'][:10]}",
        made["revert"]: f"reverts {made['mistake'][:10]}",
        made["merge"]: "is a merge; the commits that it merged stand for themselves",
    }
    tip = made["use"][:10]
    assert found.history.notes == (
        f"All changes together are not the code of {tip}: evaluation.py differs, by what was left out.",
    )
    assert repository.checksums() == before


@pytest.mark.slow
def test_the_study_plans_each_change_left_out_of_all_and_trains(lived):
    repository, _ = lived
    output = repository.folder / "commits.yaml"
    found = study_range(f"{repository.base}..main", repository.folder / "own.yaml", output=output)

    work = plan_work(output, store=repository.folder / "mlruns", device="cpu", seeds=1)
    (all_of_them,) = (it for it in work.plan.variants if len(it.changes) == len(found.history.changes))
    _, results = train_study(output, repository.folder / "mlruns", seeds=(1,), designs=("path",))

    assert {it.label for it in work.plan.comparisons} == {
        *("double-the-rate", "start-at-3-says-the-rate", "wider", "halve-the-end")  # those that no other needs
    }
    assert all_of_them.name == "head"
    assert "head: start-at-1 stays, for start-at-3-says-the-rate needs it" in " ".join(work.plan.notes)
    assert all(result.is_finished for result in results.values())
    text = output.read_text()
    assert "# Left out:\n" in text
    assert "Score twice as much: edits evaluation.py, which is fixed" in text
    assert read_yaml(output)["commit"] == repository.base


def test_a_history_whose_every_commit_is_a_change_is_its_tips_code(tmp_path):
    repository = History(tmp_path)
    repository.grow("rate", RATE)
    moved = (tmp_path / "mathematics.py").read_text()
    edits = {"mathematics.py": None, "sums.py": moved, "training.py": ("import math", "import sums as math")}
    repository.grow("baseline", edits)
    repository.grow("rate", {"sums.py": ("0.9", "0.8")})
    output = tmp_path / "commits.yaml"

    found = study_range(f"{repository.base}..", tmp_path / "own.yaml", output=output)
    plan = plan_work(output, store=tmp_path, device="cpu", designs=("combinations",)).plan
    at_tip = plan_work(repository.study(commit=found.tip), store=tmp_path, device="cpu").plan

    assert [it.name for it in found.history.changes] == [
        "rate",
        f"commit-{found.history.changes[1].commits[0][:10]}",
        "rate-2",
    ]
    assert found.history.notes == (f"All changes together are the code of {found.tip[:10]}.",)
    assert plan.variants[1].cells[0].key == at_tip.variants[0].cells[0].key


@pytest.fixture
def resolved(tmp_path):
    """A history whose merge was resolved by hand, and a commit on top of that."""
    repository = History(tmp_path / "project")
    side = repository.commit("Start at 2", OTHER_START, onto=repository.grow("Double the rate", RATE))
    repository.grow("Start at 1", START)
    tree = repository.commit("as it was resolved", {"training.py": ("score = 1.0", "score = 3.0")})
    tree = repository.git("rev-parse", f"{tree}^{{tree}}").strip()
    merge = repository.git("commit-tree", tree, "-p", "main", "-p", side, "-m", "Merge a side").strip()
    repository.git("update-ref", "refs/heads/main", merge)
    repository.git("reset", "-q", "--hard")
    repository.grow("Start at 4", {"training.py": ("score = 3.0", "score = 4.0")})
    return repository


def test_a_main_line_is_the_code_of_history_whatever_its_merges_resolved_by_hand(resolved, tmp_path):
    line = f"{resolved.base}..main"
    found = study_range(line, resolved.folder / "own.yaml", first_parent=True, output=resolved.folder / "commits.yaml")

    assert {it.name: it.needs for it in found.history.changes} == {
        "double-the-rate": (),
        "start-at-1": (),
        "start-at-2-merge-a-side": ("start-at-1",),
        "start-at-4": ("start-at-2-merge-a-side",),
    }
    assert found.history.left_out == ()
    assert found.history.notes[0].startswith("All changes together are the code of ")
    work = plan_work(found.path, store=tmp_path / "mlruns", device="cpu", seeds=1)
    assert [len(it.changes) for it in work.plan.variants] == [0, 1, 2, 3, 4]
    side = resolved.git("rev-parse", "main~1^2").strip()
    with pytest.raises(HarnessError, match=r"the main line of .* does not pass"):
        study_range(f"{side}..main", resolved.folder / "own.yaml", first_parent=True, output=tmp_path / "no.yaml")


def test_commits_that_a_merge_resolved_by_hand_are_named_and_the_study_has_what_merges(resolved, tmp_path):
    line = f"{resolved.base}..main"
    found = study_range(line, resolved.folder / "own.yaml", output=resolved.folder / "commits.yaml")

    assert [it.name for it in found.history.changes] == ["double-the-rate", "start-at-1", "start-at-2"]
    assert found.history.kept == ("double-the-rate", "start-at-1")
    said = " ".join(found.history.notes)
    assert "start-at-2: do not merge with all before them" in said
    assert "--first-parent takes each step of the main line as it is" in said
    reasons = {it.subject: why for it, why in found.history.left_out}
    assert "its edit of training.py is of lines that are not there" in reasons["Start at 4"]
    plan_work(found.path, store=tmp_path / "mlruns", device="cpu", seeds=1)


def test_what_a_needed_change_needs_itself_is_not_said_again(tmp_path):
    repository = History(tmp_path)
    repository.grow("one", START)
    repository.grow("other", RATE)
    repository.grow("two", {"training.py": ("score = 1.0", "score = 2.0")})
    repository.grow("three", {"training.py": ("score = 2.0", "score = 3.0")})

    found = study_range(f"{repository.base}..main", tmp_path / "own.yaml", output=tmp_path / "commits.yaml")

    needs = {it.name: it.needs for it in found.history.changes}
    assert needs == {"one": (), "other": (), "two": ("one",), "three": ("two",)}


def test_what_is_brought_back_is_a_change_and_stands_once(tmp_path):
    repository = History(tmp_path)
    rate = repository.grow("rate", RATE)
    taken = repository.revert(rate)
    brought = repository.revert(taken)

    found = study_range(f"{repository.base}..main", tmp_path / "own.yaml", output=tmp_path / "commits.yaml")

    assert [it.commits for it in found.history.changes] == [(rate,)]
    assert [it.commit for it, _ in found.history.left_out] == [taken, brought]


def test_commits_are_one_change_by_trailer_by_message_or_by_path(tmp_path):
    repository = History(tmp_path)
    repository.grow("[lr] double\n\nMore of it.\n\nExperiment: Rates!", RATE)
    repository.grow("[start] at 1", START)
    repository.grow("[lr] triple\n\nExperiment: Rates!", {"training.py": ("rate = 2", "rate = 3")})

    def names(by: str) -> list[tuple[str, int]]:
        output = tmp_path / f"{by[:4]}.yaml"
        found = study_range(f"{repository.base}..main", tmp_path / "own.yaml", output=output, by=by)
        return [(it.name, len(it.commits)) for it in found.history.changes]

    assert names("trailer:Experiment") == [("rates", 2), ("start-at-1", 1)]
    assert names(r"message:^\[(\w+)\]") == [("lr", 2), ("start-at-1", 1)]
    assert names("path") == [("training-py", 3)]


WRONG = [
    ("v1", {}, "'v1': expected BASE..TIP"),
    ("main...main", {}, "expected BASE..TIP"),
    ("nowhere..main", {}, "'nowhere' is no commit"),
    ("main..main", {}, "main..main: holds no commit"),
    ("side..main", {}, "main does not stand on side; their histories part at"),
    ("main..notes", {}, "no commit can be a change, and nothing was written.\n  "),
    ("main..side", {"by": "week"}, "--by week: expected commit, path, trailer:KEY or message:REGEX"),
    ("main..side", {"by": "message:("}, "is no regular expression"),
    ("main..side", {"output": "own.yaml"}, "own.yaml: is there already"),
    ("main..side", {"study": "task3"}, "task3: has no code whose commits could be changes"),
]


@pytest.mark.parametrize(("commits", "request_", "said"), WRONG)
def test_what_is_no_range_is_refused_and_nothing_is_written(tmp_path, commits, request_, said):
    repository = History(tmp_path)
    repository.commit("side", RATE, branch="side")
    repository.commit("Notes", {"README.md": "notes\n"}, branch="notes")
    if commits.startswith("side"):
        repository.grow("on", START)
    asked = {"study": tmp_path / "own.yaml", "output": "commits.yaml", **request_}

    with pytest.raises(HarnessError) as error:
        study_range(commits, asked["study"], output=tmp_path / asked["output"], by=asked.get("by", "commit"))

    assert said in str(error.value)
    assert not (tmp_path / "commits.yaml").exists()


@pytest.mark.slow
def test_the_command_says_what_it_found_as_text_and_as_json(lived, monkeypatch):
    repository, made = lived
    monkeypatch.chdir(repository.folder)
    before = repository.checksums()

    command = ["study", f"{repository.base}..main", "--study", "own.yaml"]
    told = CliRunner().invoke(cli, command, catch_exceptions=False)
    as_json = CliRunner().invoke(cli, [*command, "--json", "--output", "other.yaml"], catch_exceptions=False)

    assert told.exit_code == as_json.exit_code == 0
    assert "commits.yaml: 7 changes of" in told.output
    assert "start-at-3-says-the-rate (needs start-at-1)" in told.output
    assert f"  {made['notes'][:10]} Notes: edits nothing that training reads" in told.output
    said = json.loads(as_json.output)
    assert said["format"] == 1
    assert said["changes"][0]["commits"] == [made["rate"]]
    assert len(said["left_out"]) == 5
    assert load_study("other.yaml").designs == ("leave-one-out:head",)
    assert {
        name: it for name, it in repository.checksums().items() if name not in ("commits.yaml", "other.yaml")
    } == before
