"""The templates for schedulers: parsed, and their very command lines run as processes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from own import write_study
from test_kill import environment

from harness.cli.worker import _Duration, worker
from harness.store.cells import Cells
from harness.store.load import load_results

FOLDER = Path(__file__).parents[1] / "docs" / "scheduler"
SCRIPTS = {"slurm.sh": "SBATCH", "pbs.sh": "PBS"}
KILLED_AFTER = {"slurm.sh": 30, "pbs.sh": 10}  # seconds: KillWait of Slurm, kill_delay of PBS, as they come
PARSER = worker.make_parser(worker.make_context("worker", ["--study", "x"]))


def commands(name: str) -> list[list[str]]:
    """Every command line of the harness that a template holds, those for people among them."""
    if name.endswith(".yaml"):
        _, job = yaml.safe_load_all((FOLDER / name).read_text())
        return [it["command"] for it in job["spec"]["template"]["spec"]["containers"]]
    lines = (FOLDER / name).read_text().splitlines()
    return [shlex.split(line[line.index("harness worker") :]) for line in lines if line.startswith("exec ")]


def seconds(options: list[str], name: str) -> float:
    return _Duration().convert(options[options.index(name) + 1], None, None)


def test_there_is_a_template_for_each_scheduler():
    assert {it.name for it in FOLDER.iterdir()} == {*SCRIPTS, "kubernetes.yaml"}


@pytest.mark.parametrize("name", [*SCRIPTS, "kubernetes.yaml"])
def test_the_options_of_a_template_are_those_of_the_command(name):
    ((program, command, *options),) = commands(name)

    assert (program, command) == ("harness", "worker")
    parsed, rest, _ = PARSER.parse_args([*options])
    assert rest == []
    assert {"study", "store", "jobs", "grace"} <= parsed.keys()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_worker_ends_before_its_scheduler_kills_it(name):
    text = (FOLDER / name).read_text()
    ((_, _, *options),) = commands(name)
    directives = re.findall(rf"^#{SCRIPTS[name]} (.+)$", text, re.MULTILINE)
    (limit,) = re.findall(r"(?:--time|walltime)=(\d\d):(\d\d):(\d\d)", "\n".join(directives))
    hours, minutes, rest = map(int, limit)

    assert all(re.fullmatch(r"--[a-z-]+(=\S+)?|-[NJlrj] \S+", it) for it in directives)
    assert any(re.search(r"(--array=|-J )0-63$", it) for it in directives)
    assert seconds(options, "--for") < 3600 * hours + 60 * minutes + rest
    assert seconds(options, "--grace") < KILLED_AFTER[name]
    subprocess.run(["bash", "-n", str(FOLDER / name)], check=True)


def test_a_pod_has_time_to_save_and_mounts_what_it_names():
    claim, job = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert (claim["kind"], job["kind"], job["apiVersion"]) == ("PersistentVolumeClaim", "Job", "batch/v1")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "completions" not in job["spec"], "a queue: over when the workers find nothing"
    assert seconds(container["command"], "--grace") < pod["terminationGracePeriodSeconds"]
    volumes = {it["name"]: it for it in pod["volumes"]}
    assert {it["name"] for it in container["volumeMounts"]} == set(volumes)
    assert volumes["store"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = (it["mountPath"] for it in container["volumeMounts"] if it["name"] == "store")
    command = container["command"]
    assert command[command.index("--store") + 1].startswith(f"{mount}/")
    cpus = command[command.index("--jobs") + 1]
    assert container["resources"]["limits"]["cpu"] == container["resources"]["requests"]["cpu"] == cpus


@pytest.mark.slow
def test_the_very_lines_of_all_templates_train_one_study_together(tmp_path):
    """`srun` is one that only starts its command; the store, the study and the number of jobs are this test's."""
    path = write_study(tmp_path, pause=0.02, changes=[{"name": "wide", "overrides": {"model.width": 16}}])
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {"srun": 'exec "$@"', "harness": f'exec {sys.executable} -m harness "$@"'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    store = tmp_path / "store"
    told = {"STUDY": str(path), "STORE": str(store), "SLURM_CPUS_PER_TASK": "1", "NCPUS": "1"}
    variables = environment(tmp_path) | told | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    (pod,) = commands("kubernetes.yaml")
    here = {"task3": str(path), "/store/mlruns": str(store), "4": "1"}
    lines = [["bash", str(FOLDER / name)] for name in SCRIPTS] + [[here.get(word, word) for word in pod]]

    started = [
        subprocess.Popen(line, cwd=tmp_path, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in lines
    ]
    outputs = [process.communicate(timeout=120)[0] for process in started]

    assert [process.returncode for process in started] == [0, 0, 0], outputs
    assert all("Nothing is left: 4 cells have ended." in it for it in outputs), outputs
    table = load_results("own", store=store)
    assert list(table["status"]) == ["finished"] * 4
    cells = Cells(store)
    for key in cells.all_keys():
        assert [it["event"] for it in cells.events(key)].count("started") == 1
