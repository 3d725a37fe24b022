"""The services of docker-compose.yml as plain processes, by their very commands: a study against them, end to end."""

import json
import os
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.search.storage import open_storage
from harness.services import Service, free_port, running
from tests.browser import chromium, wait_for_text
from tests.composed import ROOT, command, environment, health_check, service
from tests.own import write_study
from tests.postgresql import postgresql_url, psql_program

pytestmark = [pytest.mark.slow, pytest.mark.ordeal]

ROLE = "services"  # stands for the role `harness` of the compose file


@dataclass(frozen=True)
class Stack:
    """What runs: the addresses on this machine, and what stands for what in the compose file."""

    mlflow: str
    dashboard: str
    replaced: dict[str, str]
    folder: Path


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """PostgreSQL with the databases of the repository's script; then the commands of mlflow, init and dashboard."""
    folder = tmp_path_factory.mktemp("stack")
    with postgresql_url() as url:
        create_databases(url)
        mlflow_port, dashboard_port = free_port(0), free_port(0)
        server = (url.rpartition("/test")[0] if "/test?" not in url else url).replace("://harness@", f"://{ROLE}@")
        replaced = {
            "postgresql+psycopg://harness@postgres:5432": server,
            "http://mlflow:5000": f"http://127.0.0.1:{mlflow_port}",
            "127.0.0.1:5000": f"127.0.0.1:{mlflow_port}",
            "127.0.0.1:8080": f"127.0.0.1:{dashboard_port}",
            "--port=5000": f"--port={mlflow_port}",
            "--port=8080": f"--port={dashboard_port}",
            "--host=0.0.0.0": "--host=127.0.0.1",  # in a container, loopback is the published port's matter
            "--artifacts-destination=/artifacts": f"--artifacts-destination={folder / 'artifacts'}",
        }
        mlflow, dashboard = f"http://127.0.0.1:{mlflow_port}", f"http://127.0.0.1:{dashboard_port}"
        with running([process_of("mlflow", f"{mlflow}/health", replaced)]):
            run(command("init", replaced), environment("init", replaced) | {"HARNESS_STORE": str(folder / "store")})
            with running([process_of("dashboard", f"{dashboard}/api/meta", replaced)]):
                yield Stack(mlflow, dashboard, replaced, folder)


def process_of(name, probe, replaced):
    arguments = tuple(command(name, replaced))
    return Service(name, arguments, probe, probe, environment(name, replaced))


def create_databases(url):
    """Runs the script that the compose file mounts into PostgreSQL's image, as that does; the superuser of the tests'
    server has the name of its role, which gets another one."""
    script = (ROOT / "docker" / "create-databases.sql").read_text().replace("harness;", f"{ROLE};")
    script = script.replace("ROLE harness ", f"ROLE {ROLE} ")
    if os.environ.get("HARNESS_TEST_PG_URL"):  # whose superuser keeps its password
        script = script.replace("ALTER ROLE CURRENT_USER PASSWORD NULL;", "")
    address = url.replace("postgresql+psycopg://", "postgresql://", 1)
    command = [psql_program(), "-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc", "--dbname", address]
    known = os.environ | {"POSTGRES_PASSWORD": "a 'quoted' password"}
    subprocess.run(command, input=script, text=True, check=True, env=known, timeout=60)


def run(arguments, variables, **options):
    done = subprocess.run(arguments, env=variables, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fetch(address, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | headers
    with urllib.request.urlopen(urllib.request.Request(address, data=data, headers=headers), timeout=60) as response:
        return response.read()


@pytest.fixture(scope="module")
def studied(stack):
    """A quick study, run by a client whose only tracking is the server."""
    variables = environment("harness", stack.replaced) | {"HARNESS_STORE": str(stack.folder / "store")}
    harness = str(Path(sysconfig.get_path("scripts")) / "harness")
    request = ["--study", "task3", "--profile", "quick", "--only", "batch-norm", "--seeds", "2", "--epochs", "1"]
    run([harness, "ablate", *request], variables, cwd=stack.folder)
    return stack


def search_runs(stack, study):
    api = f"{stack.mlflow}/api/2.0/mlflow"
    experiment = json.loads(fetch(f"{api}/experiments/get-by-name?experiment_name={study}"))["experiment"]
    body = {"experiment_ids": [experiment["experiment_id"]], "max_results": 100}
    return experiment, json.loads(fetch(f"{api}/runs/search", body))["runs"]


def tags(run):
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


def test_the_health_checks_find_the_services_healthy(stack):
    assert health_check("mlflow", stack.replaced)
    assert health_check("dashboard", stack.replaced)


def test_the_health_check_of_mlflow_notices_a_name_that_is_refused(stack):
    refused = stack.replaced | {'"Host": "mlflow:5000"': '"Host": "elsewhere:5000"'}
    assert fetch(f"{stack.mlflow}/health", Host="elsewhere:5000")  # which is why /health is no health check
    assert not health_check("mlflow", refused)


def test_clients_are_answered_under_the_name_of_the_service_and_strangers_are_not(stack):
    api = f"{stack.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    for host in ("mlflow:5000", "localhost:5000", "127.0.0.1:5000"):
        assert fetch(api, Host=host)
    for host in ("elsewhere:5000", "mlflow.evil.example:5000"):
        with pytest.raises(urllib.error.HTTPError) as error:
            fetch(api, Host=host)
        assert error.value.code == 403
        error.value.close()


def test_the_role_of_the_services_owns_their_databases_and_is_no_superuser(stack):
    import sqlalchemy

    server = stack.replaced["postgresql+psycopg://harness@postgres:5432"]
    engine = sqlalchemy.create_engine(f"{server}/mlflow", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        asked = "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = CURRENT_USER"
        assert connection.exec_driver_sql(asked).one() == (False, False, False, False)
        with pytest.raises(sqlalchemy.exc.ProgrammingError, match="permission denied"):
            connection.exec_driver_sql("SELECT * FROM pg_authid")


def test_init_may_run_again(stack):
    variables = environment("init", stack.replaced) | {"HARNESS_STORE": str(stack.folder / "store")}
    assert "search    postgresql+psycopg://" in run(command("init", stack.replaced), variables)


def test_a_study_against_the_services_ends_with_all_its_runs_finished(studied):
    _, runs = search_runs(studied, "task3")
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    kinds = [tags(run)["harness.kind"] for run in runs]
    assert (kinds.count("study"), kinds.count("variant"), kinds.count("cell")) == (1, 2, 4)


def test_its_artifacts_come_back_through_the_server(studied):
    experiment, runs = search_runs(studied, "task3")
    assert experiment["artifact_location"].startswith("mlflow-artifacts:/")
    cell = next(run for run in runs if tags(run)["harness.kind"] == "cell")
    listed = json.loads(fetch(f"{studied.mlflow}/api/2.0/mlflow/artifacts/list?run_id={cell['info']['run_id']}"))
    names = {file["path"] for file in listed["files"]}
    weights = next(name for name in names if name.endswith(".safetensors"))
    sent = fetch(f"{studied.mlflow}/get-artifact?path={weights}&run_uuid={cell['info']['run_id']}")
    kept = studied.folder / "store" / "cells" / tags(cell)["harness.cell_key"] / "best.safetensors"
    assert sent == kept.read_bytes()


@contextmanager
def started(names, replaced):
    """The commands of these services, one after the other as each is healthy."""
    processes = []
    try:
        for name in names:
            output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = subprocess.Popen(command(name, replaced), env=environment(name, replaced), **output)
            processes.append(process)
            deadline = time.monotonic() + 120
            while "healthcheck" in service(name) and not health_check(name, replaced):
                assert process.poll() is None, name
                assert time.monotonic() < deadline, name
        yield
    finally:
        for process in reversed(processes):
            process.terminate()  # as a container is stopped: Ray ends what it has started
            process.wait(timeout=60)


WAIT_FOR_WORKERS = """
import sys, time, ray
address, count = sys.argv[1:]
ray.init(address, log_to_driver=False)
deadline = time.monotonic() + 180
while ray.cluster_resources().get("CPU", 0) < int(count):
    assert time.monotonic() < deadline, ray.nodes()
    time.sleep(0.2)
"""


@contextmanager
def workers(count, address, replaced):
    """Each starts when the one before has joined: on one machine, two that start together may take the same socket."""
    with ExitStack() as started_ones:
        for number in range(1, count + 1):
            started_ones.enter_context(started(["ray-worker"], replaced))
            run([sys.executable, "-c", WAIT_FOR_WORKERS, address, str(number)], environment("ray-head", replaced))
        yield


def test_a_study_on_the_cluster_s_workers_ends_with_all_its_runs_finished(stack):
    """A head that trains nothing and two workers; the command runs where the head does."""
    pytest.importorskip("ray")
    port = free_port(0)
    replaced = stack.replaced | {"ray-head:6379": f"127.0.0.1:{port}", "--port=6379": f"--port={port}"}
    replaced |= {"--object-store-memory=1000000000": "--object-store-memory=100000000"}
    store = stack.folder / "of-the-cluster"
    assert not health_check("ray-head", replaced)
    with started(["ray-head"], replaced), workers(2, f"127.0.0.1:{port}", replaced):
        variables = environment("ray-head", replaced) | {"HARNESS_STORE": str(store)}
        request = ["--study", str(write_study(stack.folder / "own")), "--only", "wide"]
        harness = str(Path(sysconfig.get_path("scripts")) / "harness")
        said = run([harness, "ablate", *request, "--executor", f"ray:127.0.0.1:{port}"], variables, cwd=stack.folder)

    assert "4 cells trained" in said
    _, runs = search_runs(stack, "own")
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    kinds = [tags(run)["harness.kind"] for run in runs]
    assert (kinds.count("study"), kinds.count("variant"), kinds.count("cell")) == (1, 2, 4)


@pytest.fixture(scope="module")
def searched(studied):
    """A search over two changes, whole; it reads the study's cells and trains the rest."""
    variables = environment("harness", studied.replaced) | {"HARNESS_STORE": str(studied.folder / "store")}
    harness = str(Path(sysconfig.get_path("scripts")) / "harness")
    request = ["--study", "task3", "--profile", "quick", "--only", "batch-norm,dropout-0.2", "--seeds", "2"]
    run([harness, "search", *request, "--epochs", "1", "--trials", "4"], variables, cwd=studied.folder)
    return studied


def test_one_can_go_from_either_page_to_the_other(searched):
    """A trial names its runs in MLflow, and these the trial."""
    import optuna

    _, runs = search_runs(searched, "task3")
    with open_storage(environment("harness", searched.replaced)["HARNESS_OPTUNA_STORAGE"]) as (storage, _):
        (study,) = optuna.study.get_all_study_summaries(storage)
        trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert len(trials) == 4
    cells = {it["info"]["run_id"]: tags(it) for it in runs if tags(it)["harness.kind"] == "cell"}
    for trial in trials:
        links = trial.user_attrs["mlflow runs"]
        assert len(links) == 2
        for link in links.values():
            address, _, run_id = link.rpartition("/runs/")
            assert address.startswith(searched.mlflow)
            assert cells[run_id]["harness.search"] == study.study_name
            assert cells[run_id]["harness.trial"] == str(trial.number)


def test_the_pages_show_study_and_search_in_a_browser(searched):
    experiment, _ = search_runs(searched, "task3")
    with chromium() as page:
        page.get(f"{searched.mlflow}/#/experiments/{experiment['experiment_id']}/runs?workflowType=machine_learning")
        wait_for_text(page, "task3", "batch-norm")
        keep_picture(page, "mlflow")
        page.get(f"{searched.dashboard}/dashboard/")
        wait_for_text(page, "task3")
        keep_picture(page, "dashboard")
        page.get(f"{searched.dashboard}/dashboard/studies/1")
        wait_for_text(page, "validation accuracy", "batch-norm")
        keep_picture(page, "dashboard-study")
        page.get(f"{searched.dashboard}/dashboard/studies/1/note")
        wait_for_text(page, "Which changes improve the convolutional network?")
        keep_picture(page, "dashboard-note")
        page.get(f"{searched.dashboard}/dashboard/studies/1/trials")
        wait_for_text(page, "mlflow runs")
        keep_picture(page, "dashboard-trials")


def keep_picture(page, name):
    """For people who want to look: in the folder that $HARNESS_SCREENSHOTS names."""
    folder = os.environ.get("HARNESS_SCREENSHOTS")
    if folder:
        page.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_the_password_reaches_postgresql_by_the_environment_alone():
    """libpq, PostgreSQL's client library, reads PGPASSWORD; no address and no command holds it."""
    for name in ("mlflow", "init", "dashboard", "harness"):
        assert service(name)["environment"]["PGPASSWORD"].startswith("${POSTGRES_PASSWORD:?")
