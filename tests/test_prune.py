"""`harness prune`: which changes are dropped, the branch that it makes, and the repository that stays as it is."""

import copy
import os
import shutil
import subprocess

import numpy as np
import pytest
from own import train_study, write_study
from repository import RATE, START, WIDTH, TinyRepository, checksums

from harness.api import pruning
from harness.api.pruning import prune
from harness.api.studying import study_range
from harness.api.work import save_manifest
from harness.errors import HarnessError
from harness.stats.significance import noninferiority_p
from harness.trainers import commits as commits_module

NOTHING = {"mathematics.py": ("0.9", "9 / 10")}
MORE_NOTHING = {"training.py": ('run.log(step, **{"val/score": score})', 'run.log(step, **{"val/score": 1 * score})')}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A repository with five commits, of which three help and two do nothing; trained."""
    tmp_path = tmp_path_factory.mktemp("studied")
    repository = TinyRepository(tmp_path / "project")
    made = repository.base
    edits = {
        "Double the rate": RATE | {"README.md": "a study\nwith notes\n"},
        "Nothing": NOTHING,
        "Wider": WIDTH,
        "Start": START,
        "More nothing": MORE_NOTHING,
    }
    for message, edit in edits.items():
        made = repository.commit(message, edit, onto=made)
    study = tmp_path / "commits.yaml"
    study_range(f"{repository.base}..{made}", repository.folder / "own.yaml", output=study)
    work, _ = train_study(study, tmp_path / "mlruns", seeds=(1, 2))
    save_manifest(work)
    prune(study, delta=0.001, branch="first", store=tmp_path / "mlruns", executor="here", device="cpu", seeds=6)
    return repository


@pytest.fixture
def studied(template, tmp_path):
    """A copy of it."""
    for name in ("project", "mlruns", "commits.yaml"):
        place = template.folder.parent / name
        (shutil.copytree if place.is_dir() else shutil.copy2)(place, tmp_path / name)
    repository = copy.copy(template)
    repository.folder = tmp_path / "project"
    request = {"store": tmp_path / "mlruns", "executor": "here", "device": "cpu", "seeds": 6}
    return repository, tmp_path / "commits.yaml", request


def changed(repository, before):
    after = checksums(repository.folder, objects=False)
    return {name for name in {*before, *after} if after.get(name) != before.get(name)}


BRANCH = {".git/refs/heads/less", ".git/logs/refs/heads/less"}


@pytest.mark.slow
def test_what_does_nothing_goes_and_the_branch_holds_the_rest(studied, tmp_path):
    repository, study, request = studied
    (repository.folder / "training.py").write_text("edited = True\n")
    repository.git("stash")
    (repository.folder / "evaluation.py").write_text("staged = True\n")
    repository.git("add", "evaluation.py")
    (repository.folder / "evaluation.py").write_text("edited = True\n")
    before = checksums(repository.folder, objects=False)

    found = prune(study, delta=0.001, branch="less", patches=tmp_path / "patches", **request)
    again = prune(study, delta=0.001, branch="less", **request)

    assert found.kept == again.kept == ("double-the-rate", "wider", "start")
    assert found.commit == again.commit
    assert changed(repository, before) == BRANCH
    assert {it.dropped for it in found.tried if it.passes} == {("nothing",), ("more-nothing",)}
    assert not found.tried[-1].passes
    subjects = repository.git("log", "--format=%s", f"{repository.base}..less").splitlines()
    assert subjects == ["Start", "Wider", "Double the rate"]
    assert "3 of 5 changes are no worse" in repository.git("log", "-1", "--format=%B", "less")
    code = repository.git("show", "less:training.py")
    assert ("rate = 2 * s.rate" in code, "width = 16" in code, "score = 1.0" in code, "1 * score" in code) == (
        *(True, True, True, False),
    )
    assert repository.git("show", "less:README.md") == "a study\nwith notes\n"  # that training does not read
    assert repository.git("show", "less:mathematics.py") == repository.git("show", f"{repository.base}:mathematics.py")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", repository.folder, clone], check=True)
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run([*git, "checkout", "-q", repository.base], cwd=clone, check=True)
    subprocess.run([*git, "am", "-q", *map(str, found.patches)], cwd=clone, check=True)
    assert (clone / "training.py").read_text() == code


@pytest.mark.ordeal
def test_killed_at_any_command_of_git_the_repository_is_as_it_was(studied):
    """A child dies at its first, second, ... command of git as it writes the branch; the last one lives."""
    repository, study, request = studied
    found = prune(study, delta=0.001, branch="first", **request)  # once more: the branch is there
    before = checksums(repository.folder, objects=False)
    trainer, real = found.work.plan.study.trainer, commits_module.run_git

    def dying_at(number):
        calls = []

        def run_git(*arguments, **more):
            calls.append(arguments)
            if len(calls) == number:
                os._exit(7)
            return real(*arguments, **more)

        return run_git

    deaths = 0
    while changed(repository, before) == set():
        child = os.fork()
        if child == 0:
            commits_module.run_git = dying_at(deaths + 1)
            pruning._written(found, trainer, "less", None)
            os._exit(0)
        deaths += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

    assert deaths >= 15
    assert changed(repository, before) == BRANCH
    assert repository.git("rev-parse", "less") == repository.git("rev-parse", "first")


WRONG = [
    ({"delta": 0.0}, "--delta, positive"),
    ({"head": "all"}, "--head all: the study has no combination of this name; it has: head"),
    ({"branch": "a b"}, "--branch 'a b': is no name of a branch"),
    ({"branch": "main"}, "branch main is there already, with other commits"),
    ({"store": "empty"}, "holds no result of commits-standard-"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "said"), WRONG)
def test_what_cannot_be_pruned_is_refused(studied, asked, said, monkeypatch, tmp_path):
    repository, study, request = studied
    monkeypatch.chdir(tmp_path)
    before = checksums(repository.folder, objects=False)
    with pytest.raises(HarnessError) as error:
        prune(study, **{"delta": 0.001, **request, **asked})
    assert said in str(error.value)
    assert changed(repository, before) == set()


@pytest.mark.slow
def test_settings_alone_are_pruned_without_a_branch(studied, tmp_path):
    request = studied[2]
    path = write_study(tmp_path / "own", changes=[
        {"name": "wide", "overrides": {"model.width": 16}},
        {"name": "flagged", "overrides": {"flag": True}},
        {"name": "hair", "overrides": {"rate": 0.5000001}},
    ], combinations=[{"name": "all", "changes": ["wide", "flagged", "hair"]}],
    designs=["leave-one-out:all"])  # fmt: skip
    work, _ = train_study(path, request["store"])
    save_manifest(work)

    found = prune(path, head="all", delta=0.01, **request)

    assert (found.kept, found.settings, found.branch) == (("wide", "flagged"), ("wide", "flagged"), "")
    assert "Settings, which no commit holds: wide, flagged." in found.report


def test_non_inferiority_is_one_side_of_equivalence():
    from scipy.stats import ttest_1samp

    improved = np.array([0.1, -0.3, 0.2, -0.1, 0.05])
    assert noninferiority_p(improved, 0.2) == pytest.approx(ttest_1samp(improved, -0.2, alternative="greater").pvalue)
    assert noninferiority_p(np.full(4, -0.1), 0.2) == 0
    assert noninferiority_p(np.full(4, -0.2), 0.2) == 1
    assert np.isnan(noninferiority_p(np.array([0.5]), 0.2))


@pytest.mark.slow
def test_more_changes_than_tests_are_dropped_several_at_a_time(monkeypatch, studied):
    _, study, request = studied
    monkeypatch.setattr(pruning, "MOST_TESTS", 2)
    found = prune(study, delta=0.001, branch="less", **request)
    assert [len(it.dropped) for it in found.tried] == [3]
    assert found.kept == found.full
    assert "All 5 changes stay" in found.sentence
