"""`harness mcp` as a program meets it: started by a real client, which speaks to it over standard input and output."""

import asyncio
import json
import os
import sys

import pytest
from click.testing import CliRunner
from own import train_study, write_study
from repository import RATE, START, TinyRepository
from schemas import fitting
from test_judge import METRICS, NOISY

from harness.api.studying import study_range
from harness.api.work import plan_work, save_manifest
from harness.cli import cli
from harness.cli.mcp import Tools
from harness.errors import StudyError
from harness.store.cells import Cells

pytestmark = pytest.mark.slow

# It prints while it trains, and reports what no tool may show.
LOUD = NOISY.replace("    run.log(", '    print("not of the protocol", flush=True)\n    run.log(').replace(
    '"test/score": score', '"test/score": -777.0'
)


@pytest.fixture
def study(tmp_path):
    baseline = {"gain": 0.0, "luck": 0, "unread": 1}
    return write_study(tmp_path / "own", function=LOUD, baseline=baseline, metrics=METRICS, changes=[])


def calling(client):
    """Calls a tool; what it answers."""

    async def call(tool, **arguments):
        found = await client.call_tool(tool, arguments)
        return json.loads(found.content[0].text)

    return call


@pytest.mark.ordeal
def test_a_client_plans_judges_and_reads_within_the_budget(study, tmp_path):
    mcp = pytest.importorskip("mcp")
    command = ["-m", "harness", "mcp", "--study", str(study), "--store", str(tmp_path / "mlruns"), "--cells", "40"]
    server = mcp.StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ), cwd=str(tmp_path))

    async def talk():
        async with mcp.Client(server) as client:
            call = calling(client)
            names = {it.name for it in (await client.list_tools()).tools}
            asked = {"settings": {"gain": 4.0, "luck": 1}, "promote": True}
            planned = await call("plan")
            judged, again = await call("judge", **asked), await call("judge", **asked)
            refused = await call("judge", settings={"gain": 5.0, "luck": 2}, seeds=30)
            wrong = await call("judge", settings={"speed": 1})
            cell = Cells(tmp_path / "mlruns").all_keys()[0]
            return names, planned, judged, again, refused, wrong, await call("logs", cell=cell), await call("results")

    names, planned, judged, again, refused, wrong, said, results = asyncio.run(talk())

    assert names == {"plan", "judge", "results", "logs", "prune"}
    assert (planned["budget_left"], planned["selects_by"], planned["fixed"]) == (40, "val/score", [])
    assert (judged["verdict"], judged["promoted"], judged["metric"]) == ("keep", 1, "val/score")
    assert judged["budget_left"] == 40 - judged["cells_trained"] - 4
    assert (again["repeated"], again["budget_left"]) == (True, judged["budget_left"])
    assert "may train" in refused["error"]
    assert "nothing was trained" in refused["error"]
    assert "unknown setting 'speed'" in wrong["error"]
    assert "not of the protocol" in said["said"]
    assert "no results" in results["error"]  # of the study itself: only the line has some
    assert "-777" not in json.dumps([planned, judged, again, results])


@pytest.mark.ordeal
def test_a_client_prunes_within_the_budget(tmp_path):
    mcp = pytest.importorskip("mcp")
    repository = TinyRepository(tmp_path / "project", profiles={"standard": {"seeds": 2}})
    tip = repository.commit("Start", START, onto=repository.commit("Double the rate", RATE))
    study, store = tmp_path / "commits.yaml", tmp_path / "mlruns"
    study_range(f"{repository.base}..{tip}", repository.folder / "own.yaml", output=study)
    train_study(study, store)
    save_manifest(plan_work(study, store=store, device="cpu"))
    before, trained = repository.checksums(), len(Cells(store).all_keys())
    command = ["-m", "harness", "mcp", "--study", str(study), "--store", str(store), "--cells", "20", "--jobs", "1"]
    server = mcp.StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ), cwd=str(tmp_path))

    async def talk():
        async with mcp.Client(server) as client:
            call = calling(client)
            told = [await call("plan"), await call("results"), await call("prune", delta=1.0, seeds=30)]
            untouched = repository.checksums() == before and len(Cells(store).all_keys()) == trained
            return *told, untouched, await call("prune", delta=1.0, seeds=6, branch="fewer")

    planned, results, refused, untouched, pruned = asyncio.run(talk())

    assert (planned["changes"], planned["cells_to_train"]) == (["double-the-rate", "start"], 0)
    assert len(results["cells"]) == trained
    assert "may train" in refused["error"]
    assert untouched
    fresh = len(Cells(store).all_keys()) - trained
    assert pruned.pop("budget_left") == 20 - fresh > 0
    assert fitting("prune", json.dumps(pruned))["branch"] == "fewer"
    assert repository.git("rev-parse", "fewer").strip() == pruned["commit"]


def test_results_show_the_selecting_metric_alone(study, tmp_path):
    done = CliRunner().invoke(
        cli, ["ablate", "--study", str(study), "--executor", "here", "--store", str(tmp_path / "s")]
    )
    assert done.exit_code == 0, done.output
    found = Tools(str(study), tmp_path / "s", "standard", "main", 0, None).results()
    assert (found["metric"], len(found["cells"]), found["left_out"]) == ("val/score", 2, 0)
    assert set(found["cells"][0]) == {"variant", "seed", "status", "val/score", "key"}


def test_what_is_in_the_store_is_told_without_a_budget(study, tmp_path):
    asked = {"settings": {"gain": 4.0, "luck": 1}, "promote": True}
    first = Tools(str(study), tmp_path / "s", "standard", "main", 60, None).judge(**asked)
    again = Tools(str(study), tmp_path / "s", "standard", "main", 0, None).judge(**asked)
    assert (first["promoted"], again["promoted"], again["repeated"], again["budget_left"]) == (1, 1, True, 0)


def test_a_study_that_is_not_there_is_named_at_once(tmp_path):
    pytest.importorskip("mcp")
    done = CliRunner().invoke(cli, ["mcp", "--study", str(tmp_path / "nope.yaml"), "--cells", "3"])
    assert done.exit_code == 2
    assert "nope.yaml" in done.output


def test_without_a_budget_nothing_is_trained(study, tmp_path):
    tools = Tools(str(study), tmp_path / "s", "standard", "main", 0, None)
    for more in ({}, {"promote": True}, {"level": "explore"}):
        with pytest.raises(StudyError, match="the budget has 0 left; nothing was trained"):
            tools.judge(settings={"gain": 1.0}, **more)
    assert Cells(tmp_path / "s").all_keys() == []
