"""`harness mcp` as a program meets it: started by a real client, which speaks to it over standard input and output."""

import asyncio
import json
import os
import sys

import pytest
from click.testing import CliRunner
from own import write_study
from test_judge import METRICS, NOISY

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


@pytest.mark.ordeal
def test_a_client_plans_judges_and_reads_within_the_budget(study, tmp_path):
    mcp = pytest.importorskip("mcp")
    command = ["-m", "harness", "mcp", "--study", str(study), "--store", str(tmp_path / "mlruns"), "--cells", "40"]
    server = mcp.StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ), cwd=str(tmp_path))

    async def talk():
        async with mcp.Client(server) as client:

            async def call(tool, **arguments):
                found = await client.call_tool(tool, arguments)
                return json.loads(found.content[0].text)

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
