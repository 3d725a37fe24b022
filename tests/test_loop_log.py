"""A loop's log as a study: what it claimed, what it kept; and what a budget of cells can show."""

import json

import pytest
from click.testing import CliRunner
from own import train_study, write_study
from repository import OTHER_START, RATE, START, WIDTH, TinyRepository

from harness.api.studying import study_range
from harness.api.work import plan_work
from harness.cli import cli
from harness.errors import StudyError
from harness.plan.budget import options
from harness.study.load import load_study
from harness.study.loop_log import claimed_gains, read_log
from harness.study.yaml_file import read_yaml


@pytest.fixture
def looped(tmp_path):
    """A loop's repository, its log and commits: two kept, two discarded, one of them gone."""
    repository = TinyRepository(tmp_path / "project", fixed=["evaluation.py"])
    made = {"rate": repository.commit("Double the rate", RATE)}
    made["start"] = repository.commit("Start at 1", START, onto=made["rate"])
    made["other"] = repository.commit("Start at 2", OTHER_START, onto=made["rate"])
    made["cheat"] = repository.commit("Score twice as much", {"evaluation.py": ("/ 10", "/ 5")}, onto=made["other"])
    made["wide"] = repository.commit("Wider", WIDTH, onto=made["other"])
    log = repository.folder / "results.tsv"
    rows = [
        (repository.base[:9], "0.50", "12.0", "keep", "baseline"),
        (made["rate"][:9], "0.60", "12.0", "keep", "double the rate"),
        (made["start"][:9], "0.58", "12.0", "discard", "start at 1"),
        ("0123456789", "0.000", "0.0", "crash", "gone"),
        (made["other"][:9], "0.65", "12.0", "keep", "start at 2"),
        (made["cheat"][:9], "1.30", "12.0", "discard", "score more"),
        (made["wide"][:9], "0.70", "12.0", "keep", "wider"),
    ]
    lines = ["commit\tval_score\tmemory_gb\tstatus\tdescription", *("\t".join(row) for row in rows)]
    log.write_text("\n".join(lines) + "\n")
    return repository, log, made


def test_every_proposal_is_a_change_and_what_was_kept_is_the_head(looped, tmp_path):
    repository, log, made = looped
    before = repository.checksums()

    found = study_range(study=repository.folder / "own.yaml", log=log, output=tmp_path / "loop.yaml")
    tree = read_yaml(tmp_path / "loop.yaml")

    assert {it.name: (it.commits, it.needs) for it in found.history.changes} == {
        "double-the-rate": ((made["rate"],), ()),
        "start-at-1": ((made["start"],), ()),  # of another future than the next one, which does not need it
        "start-at-2": ((made["other"],), ()),
        "wider": ((made["wide"],), ()),
    }
    assert (found.base, found.tip, found.history.kept) == (
        repository.base,
        made["wide"],
        ("double-the-rate", "start-at-2", "wider"),
    )
    assert [it.commit for it, _ in found.history.left_out] == [made["cheat"]]
    assert found.history.notes == (
        "1 rows of the log name no commit of the repository any more: 0123456789 gone.",
        f"The 3 changes that were kept together are the code of {made['wide'][:10]}.",
    )
    gains = {"double-the-rate": 0.1, "start-at-1": -0.02, "start-at-2": 0.05, "wider": 0.05}
    assert found.claims == {name: pytest.approx(gain) for name, gain in gains.items()}
    assert tree["changes"][1]["source"] == "discarded by the loop: 0.0200 worse on its one run"
    assert tree["combinations"] == [
        {"name": "head", "summary": "what was kept", "changes": ["double-the-rate", "start-at-2", "wider"]}
    ]
    assert repository.checksums() == before


@pytest.mark.slow
def test_the_command_takes_a_log_with_a_budget(looped, monkeypatch):
    repository, _, _ = looped
    monkeypatch.chdir(repository.folder)
    command = ["study", "--from", "results.tsv", "--study", "own.yaml", "--budget", "120"]
    said = CliRunner().invoke(cli, command, catch_exceptions=False)
    told = json.loads(
        CliRunner().invoke(cli, [*command, "--json", "--output", "b.yaml"], catch_exceptions=False).output
    )

    assert "commits.yaml: 4 changes of results.tsv, 3 of them kept." in said.output
    assert "Chosen: screening: 8 variants x 15 seeds = 120 cells, finds effects of" in said.output
    assert "Not chosen: leave-one-out:head: 5 variants x 24 seeds" in said.output
    assert (told["format"], told["cells"]) == (1, 120)
    assert [it["kept"] for it in told["changes"]] == [True, False, True, True]
    study = load_study("b.yaml")
    assert (study.designs, study.profiles["standard"].seeds) == (("screening",), 15)


@pytest.mark.slow
def test_a_budget_of_time_is_measured_by_the_cells_that_there_are(looped, tmp_path):
    repository, log, _ = looped
    asked = {"study": repository.folder / "own.yaml", "log": log, "store": tmp_path / "mlruns"}
    with pytest.raises(StudyError, match=r"was not measured here yet. `harness try .*own.yaml` measures it"):
        study_range(**asked, output=tmp_path / "one.yaml", budget="1h")
    assert not list(tmp_path.glob("*.yaml"))
    _, results = train_study(repository.folder / "own.yaml", tmp_path / "mlruns", seeds=1)

    found = study_range(**asked, output=tmp_path / "one.yaml", budget="1m")

    (result,) = results.values()
    workers = len(plan_work(repository.folder / "own.yaml", store=tmp_path, device="cpu").devices)
    num_cells = int(60 * workers / max(result.seconds, 1e-3))
    assert found.budget[0].seeds == min(num_cells // found.budget[0].num_variants, 10_000)


WRONG = [
    ("commit\tstatus\n", "no row"),
    ("hash,loss\n1,2\n", "has no column for status"),
    ("sha,kept,idea\na,1,x\n", "no column of numbers"),
    ("", "has no column for commit"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_is_no_log_is_refused(tmp_path, text, said):
    path = tmp_path / "results.tsv"
    path.write_text(text)
    with pytest.raises(StudyError, match=said):
        read_log(path)


def test_logs_in_other_words_are_read(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("Revision,Loss,Accepted,Idea\nabc,2.5,yes,one\n\ndef,nan-ish,no,\nghi,inf,False\n")
    rows = read_log(path)
    assert [(it.commit, it.value, it.is_kept, it.description) for it in rows] == [
        ("abc", 2.5, True, "one"),
        ("def", None, False, ""),
        ("ghi", None, False, ""),
    ]
    assert claimed_gains(rows, -1) == {}


@pytest.mark.parametrize("budget", ["0", "-3", "soon", "3 h", ""])
def test_what_is_no_budget_is_refused(looped, tmp_path, budget):
    repository, log, _ = looped
    if budget:
        with pytest.raises(StudyError, match="expected cells, such as 800, or time"):
            study_range(study=repository.folder / "own.yaml", log=log, output=tmp_path / "x.yaml", budget=budget)


def test_a_budget_for_nothing_says_what_it_takes(looped, tmp_path):
    repository, log, _ = looped
    with pytest.raises(StudyError, match="has room for 3 cells, and the smallest design takes 4"):
        study_range(study=repository.folder / "own.yaml", log=log, output=tmp_path / "x.yaml", budget="3")
    assert not list(tmp_path.glob("*.yaml"))


def test_what_a_budget_can_show_is_the_designs_own_arithmetic(tmp_path):
    changes = [{"name": f"c{it}", "overrides": {f"k{it}": 1}} for it in range(40)]
    settings = {f"k{it}": 0 for it in range(40)}
    baseline = {"rate": 0.5, "steps": 4, "model": {"width": 8}, "flag": False, **settings}
    names = [it["name"] for it in changes]
    path = write_study(
        tmp_path, baseline=baseline, changes=changes, combinations=[{"name": "head", "changes": names[:10]}]
    )
    study = load_study(path)

    found = {it.design: it for it in options(study, 880, ["screening", "screening:plain", "leave-one-out:head"])}

    plans = {
        name: plan_work(path, store=tmp_path, device="cpu", designs=(name,), seeds=it.seeds, only=("head", *names)).plan
        for name, it in found.items()
        if name != "leave-one-out:head"
    }
    assert {name: len(plan.cells) for name, plan in plans.items()} == {name: found[name].num_cells for name in plans}
    # t with 88 - 1 - 40 degrees: (3.4345 + .8493) * 2 / sqrt(880); of the plain one with 3: (11.984 + .9785) * ..
    assert found["screening"].detectable == pytest.approx(0.289, abs=1e-3)
    assert found["screening:plain"].detectable == pytest.approx((11.9838 + 0.9785) * 2 / 880**0.5, abs=2e-3)
    # And sqrt(2 / 73) of pairs, of ten changes: (2.807 + .8416) * .1655.
    assert found["leave-one-out:head"].seeds == 880 // 12
    assert found["leave-one-out:head"].detectable == pytest.approx(0.604, abs=1e-3)
