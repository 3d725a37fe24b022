"""Services: started together, waited for, watched, stopped with all their children; the real ones, too."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from harness import services
from harness.errors import TrackingError
from harness.guard import Guard
from harness.search.storage import open_storage
from harness.services import Service, answers, free_port, optuna_dashboard, running, without_password
from tests.browser import chromium, wait_for_text
from tests.tracked import a_store

pytestmark = pytest.mark.slow

SERVE = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == '/ok' else 503)
        self.end_headers()
    def log_message(self, *arguments): pass
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"""
CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);" + SERVE
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SERVE


def served(code=SERVE, path="/ok", name="page"):
    port = free_port(0)
    address = f"http://127.0.0.1:{port}"
    return Service(name, (sys.executable, "-c", code, str(port)), address, address + path)


def group_of(leader):
    """The processes of a group that are not dead."""
    alive = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return alive


def test_services_answer_inside_the_block_and_are_gone_after_it():
    first, second = served(), served()
    with running([first, second]) as started:
        assert answers(first.probe)
        assert answers(second.probe)
        groups = [it.process.pid for it in started.started]
        assert all(map(group_of, groups))
    assert not any(map(group_of, groups))
    assert not answers(first.probe)


def test_the_children_of_a_service_end_with_it():
    with running([served(CHILD)]) as started:
        (group,) = [it.process.pid for it in started.started]
        assert len(group_of(group)) == 2
    assert group_of(group) == []


@pytest.mark.parametrize("code", [CHILD, STUBBORN])
def test_services_end_when_their_starter_is_killed(code):
    port = free_port(0)
    starter = (
        "import sys; from harness.services import Service, running\n"
        f"address = 'http://127.0.0.1:{port}'\n"
        f"command = (sys.executable, '-c', {code!r}, '{port}')\n"
        "with running([Service('page', command, address, address + '/ok')]) as started:\n"
        "    print(started.started[0].process.pid, flush=True); started.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        group = int(process.stdout.readline())
        assert group_of(group)
        process.kill()

    deadline = time.monotonic() + 20
    while group_of(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group_of(group) == []


@pytest.fixture
def two_sleepers():
    sleepers = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2)]
    yield sleepers
    for it in sleepers:
        it.kill()
        it.wait()


def test_a_guard_ends_what_it_watches_and_not_what_it_was_told_to_forget(two_sleepers):
    """Whose number may be another's by then."""
    watched, forgotten = two_sleepers
    guard = Guard(seconds=0)
    for it in two_sleepers:
        guard.watch(it.pid)
    guard.forget(forgotten.pid)
    guard.leave()

    assert watched.wait(timeout=10) < 0
    assert forgotten.poll() is None


def test_a_guard_is_deaf_to_what_a_terminal_or_a_scheduler_sends_to_every_process_of_a_job(two_sleepers):
    watched, _ = two_sleepers
    guard = Guard(seconds=0)
    guard.watch(watched.pid)
    assert os.getpgid(guard._process.pid) != os.getpgid(0)
    ignored = 1 << (signal.SIGTERM - 1)
    deadline = time.monotonic() + 10
    while not int(Path(f"/proc/{guard._process.pid}/status").read_text().split("SigIgn:")[1].split()[0], 16) & ignored:
        assert time.monotonic() < deadline, "it is not deaf to SIGTERM"
        time.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        guard._process.send_signal(number)

    time.sleep(0.1)
    assert guard.is_alive
    guard.leave()
    assert watched.wait(timeout=10) < 0


def test_a_guard_that_was_told_that_all_is_over_ends_nothing(two_sleepers):
    guard = Guard(seconds=0)
    guard.watch(two_sleepers[0].pid)
    guard.close()
    assert not guard.is_alive
    assert two_sleepers[0].poll() is None


def test_a_service_that_does_not_want_to_end_is_killed(monkeypatch):
    monkeypatch.setattr(services, "STOP_SECONDS", 0.5)
    with running([served(STUBBORN)]) as started:
        (group,) = [it.process.pid for it in started.started]
    assert group_of(group) == []


def test_a_service_that_dies_at_the_start_is_reported_with_its_last_words_and_the_others_are_stopped():
    other = served()
    dying = served("import sys; print('the reason'); sys.exit(3)", name="the bad one")
    with pytest.raises(TrackingError) as error, running([other, dying]):
        pass
    assert str(error.value) == "the bad one ended with exit code 3. It said:\nthe reason"
    assert not answers(other.probe)


def test_a_service_that_dies_later_is_noticed():
    with running([served()]) as everything:
        everything.started[0].process.kill()
        with pytest.raises(TrackingError, match=r"page ended with exit code -9\. It said nothing\."):
            everything.wait()


def test_a_service_that_answers_with_an_error_is_not_ready(monkeypatch):
    monkeypatch.setattr(services, "READY_SECONDS", 1.0)
    with pytest.raises(TrackingError, match="page did not answer within 1 s"), running([served(path="/broken")]):
        pass


def test_an_interruption_while_waiting_stops_everything():
    service, handler = served(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), running([service]):
        raise KeyboardInterrupt
    assert not answers(service.probe)
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_preferred_port_is_taken_if_it_is_free():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        taken = listening.getsockname()[1]
        other = free_port(taken)
        assert other != taken
    assert free_port(other) == other


def test_ports_are_the_same_each_time_and_move_on_together_where_one_is_taken():
    first = free_port(0) // 10 * 10 + 30
    with socket.socket() as listening:
        found = services.ports(first, 3, is_asked=False)
        assert found == list(range(found[0], found[0] + 3))
        assert services.ports(found[0], 3, is_asked=True) == found
        listening.bind(("127.0.0.1", found[1]))
        listening.listen()
        assert services.ports(found[0], 3, is_asked=False)[0] > found[2]
        with pytest.raises(TrackingError, match=rf"--port {found[0]}: somebody listens on {found[1]} already"):
            services.ports(found[0], 3, is_asked=True)


@pytest.mark.parametrize(
    ("url", "bare", "environment"),
    [
        (
            "postgresql+psycopg://me:p%40ss%2F@host:5432/db",
            "postgresql+psycopg://me@host:5432/db",
            {"PGPASSWORD": "p@ss/"},
        ),
        (
            "postgresql+psycopg://me@/db?host=/sock&password=p%40ss",
            "postgresql+psycopg://me@/db?host=/sock",
            {"PGPASSWORD": "p@ss"},
        ),
        ("postgresql+psycopg://me@host/db?sslmode=require", "postgresql+psycopg://me@host/db?sslmode=require", {}),
        ("sqlite:////a/b:c@d/optuna.db", "sqlite:////a/b:c@d/optuna.db", {}),
    ],
)
def test_a_password_goes_into_the_environment_and_not_into_the_command(url, bare, environment):
    assert without_password(url) == (bare, environment)
    service = optuna_dashboard(url, 1)
    assert bare in service.command
    assert service.environment == environment


# harness ui, with the real programs


def heed_signals():
    """Ignored signals are inherited: SIGINT where a shell runs the tests with `&`, SIGHUP under nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def harness_ui(store, **variables):
    """`harness ui` as a process of its own, and the lines that it printed until it was ready."""
    known = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "HARNESS_"))}
    program = Path(sysconfig.get_path("scripts")) / "harness"
    process = subprocess.Popen(
        [program, "ui", "--store", store],
        env=known | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("Ctrl-C"):
                break
        else:
            pytest.fail(f"harness ui ended: {lines}\n{process.stderr.read()}")
        yield process, lines
    finally:
        process.terminate()
        process.communicate(timeout=60)


def addresses(lines):
    """Of MLflow and of the dashboard, or of the latter only."""
    services = sorted(line for line in lines if line.startswith(("MLflow", "Optuna")))
    found = [re.search(r"http://127\.0\.0\.1:\d+", line) for line in services]
    return [match[0] for match in found if match]


def page_address(lines):
    return next(line.split()[-1] for line in lines if line.startswith("Studies"))


def fetch(address, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as response:
        return json.loads(response.read())


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """`harness ui` on a store with a run and a search: the process, its lines, the store."""
    import optuna
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("ui")
    uri, _ = a_store(root)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("a study", artifact_location=(root / "artifacts").as_uri())
    run = client.create_run(experiment, run_name="a cell of it")
    client.log_metric(run.info.run_id, "val/accuracy", 0.75)
    client.log_text(run.info.run_id, "a note", "note.txt")
    client.set_terminated(run.info.run_id)
    with open_storage(f"sqlite:///{root / 'optuna.db'}") as (storage, _):
        study = optuna.create_study(storage=storage, study_name="a search")
        study.optimize(lambda trial: trial.suggest_categorical("norm", [False, True]) + 0.5, n_trials=2)
    with harness_ui(root) as (process, lines):
        yield process, lines, root


def test_ui_prints_each_address_once_it_answers(shown):
    _, lines, _ = shown
    mlflow, dashboard = addresses(lines)
    first = [line.split()[0] for line in lines]
    assert (first[0], first[-1]) == ("Starting;", "Ctrl-C")
    assert sorted(first[1:-1]) == ["MLflow", "Optuna", "Studies", "a"]
    assert first[first.index("MLflow") + 1] == "a"  # the experiment, below its server
    assert fetch(f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=a%20study")
    assert [it["study_name"] for it in fetch(f"{dashboard}/api/studies")["study_summaries"]] == ["a search"]


def test_ui_listens_on_loopback_only_and_refuses_other_names(shown):
    process, lines, _ = shown
    children = psutil.Process(process.pid).children(recursive=True)
    listening = [it.laddr for child in children for it in child.net_connections() if it.status == "LISTEN"]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    served = [page_address(lines).rstrip("/"), *addresses(lines)]
    assert {address.port for address in listening} == {int(it.rpartition(":")[2]) for it in served}
    api = f"{addresses(lines)[0]}/api/2.0/mlflow/experiments/search?max_results=1"
    assert fetch(api, Host="localhost:5000")
    with pytest.raises(urllib.error.HTTPError) as error:  # a page elsewhere whose name points at this machine
        fetch(api, Host="evil.example:5000")
    assert error.value.code == 403
    error.value.close()


def status_of(address, method="GET", **headers):
    request = urllib.request.Request(
        address, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_dashboard_refuses_other_hosts_and_pages_of_other_origins(shown):
    _, lines, _ = shown
    server = addresses(lines)[1]
    host = server.removeprefix("http://")
    api = f"{server}/api/studies"
    for allowed in (host, "localhost:1", "LOCALHOST", "[::1]:8080"):
        assert status_of(api, Host=allowed) == 200
    refused = (
        "evil.example",
        f"evil.example:{host[-4:]}",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "a:b:c",
        "",
    )
    for other in refused:
        assert status_of(api, Host=other) in (400, 403), other
    assert status_of(api, Origin=server) == 200
    for origin in ("http://evil.example", "null", "http://localhost", "https://[", f"{server}.evil.example", ""):
        assert status_of(api, Origin=origin) == 403, origin
        assert status_of(f"{api}/1", "DELETE", Origin=origin) == 403, origin
    assert status_of(f"{api}/1", "DELETE", Host="evil.example") == 403
    assert status_of(f"{api}/1", "DELETE", Sec_Fetch_Site="cross-site") == 403
    assert [it["study_name"] for it in fetch(api)["study_summaries"]] == ["a search"]  # all of them left it alone
    assert status_of(f"{api}/99", "DELETE", Origin=server, Sec_Fetch_Site="same-origin") == 404  # reached the handler


def test_ui_starts_no_job_queue(shown):
    process, _, _ = shown
    commands = [" ".join(child.cmdline()) for child in psutil.Process(process.pid).children(recursive=True)]
    assert not any("huey" in command or "job" in command for command in commands)
    assert len(commands) <= 6  # MLflow's command and its server with a helper; the dashboard and its worker; the page


def test_ui_serves_the_artifacts_of_runs_that_were_written_without_a_server(shown):
    _, lines, _ = shown
    mlflow = addresses(lines)[0]
    found = fetch(f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=a%20study")
    body = json.dumps({"experiment_ids": [found["experiment"]["experiment_id"]]}).encode()
    request = urllib.request.Request(
        f"{mlflow}/api/2.0/mlflow/runs/search", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        (run,) = json.loads(response.read())["runs"]
    address = f"{mlflow}/get-artifact?path=note.txt&run_uuid={run['info']['run_id']}"
    with urllib.request.urlopen(address, timeout=30) as response:
        assert response.read() == b"a note"


@pytest.mark.ordeal
def test_ui_shows_the_run_and_the_search_in_a_browser(shown):
    _, lines, _ = shown
    (runs,) = [line.split()[-1] for line in lines if line.startswith("  a study ")]
    with chromium() as page:
        page.get(runs)
        wait_for_text(page, "a study", "a cell of it")
        page.get(f"{addresses(lines)[1]}/dashboard/")
        wait_for_text(page, "a search")
        page.get(page_address(lines))
        wait_for_text(page, "There is no study in this store yet.")
        links = [it.get_attribute("href") for it in page.find_elements("css selector", ".services a")]
        assert links[1:] == [f"{addresses(lines)[0]}/", f"{addresses(lines)[1]}/dashboard/"]


@pytest.mark.ordeal
def test_a_second_ui_takes_other_ports_and_notices_when_one_of_its_services_dies(shown):
    _, lines, root = shown
    with harness_ui(root) as (process, others):
        assert not set(addresses(lines)) & set(addresses(others))
        children = psutil.Process(process.pid).children(recursive=True)
        dashboard = next(it for it in psutil.Process(process.pid).children() if "harness.search.serve" in it.cmdline())
        dashboard.kill()
        assert process.wait(timeout=60) == 2
        assert "Optuna dashboard ended with exit code -9" in process.stderr.read()
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert not any(map(answers, addresses(others)))
    assert all(map(answers, addresses(lines)))


@pytest.mark.ordeal
def test_ui_makes_both_databases_where_there_is_nothing_and_stops_both_on_ctrl_c(tmp_path):
    with harness_ui(tmp_path / "new") as (process, lines):
        assert (tmp_path / "new" / "mlflow.db").exists()
        assert (tmp_path / "new" / "optuna.db").exists()
        assert len(addresses(lines)) == 2
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "Stopped.\n"
        assert process.stderr.read() == ""
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert not any(map(answers, addresses(lines)))


def test_ui_shows_a_server_that_runs_elsewhere_and_starts_none_and_ends_with_its_terminal(shown, tmp_path):
    _, lines, _ = shown
    server = addresses(lines)[0]
    with harness_ui(tmp_path, MLFLOW_TRACKING_URI=server) as (process, others):
        assert f"MLflow            {server} (a server of its own)" in others
        assert len(addresses(others)) == 2
        assert others[-1] == "Ctrl-C stops all of them."
        children = psutil.Process(process.pid).children(recursive=True)
        assert not any("mlflow" in str(child.cmdline()) for child in children)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=60) == 0
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert answers(server)


def test_ui_says_what_is_wrong_with_a_store_that_cannot_be_used(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database")
    program = Path(sysconfig.get_path("scripts")) / "harness"
    known = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "HARNESS_"))}
    done = subprocess.run([program, "ui", "--store", tmp_path], capture_output=True, text=True, timeout=60, env=known)
    assert done.returncode == 2
    assert "mlflow.db" in done.stderr
    assert "Traceback" not in done.stderr
