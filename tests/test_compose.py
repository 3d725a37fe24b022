"""docker-compose.yml without a container engine: its schema, its variables, and what PLATFORM facts demand of it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.composed import FILE, ROOT, compose, service

SERVERS = ("postgres", "mlflow", "dashboard")
EVERY = tuple(compose()["services"])


def config(**variables):
    """What Debian's docker-compose says of the file; it needs no engine for that."""
    program = shutil.which("docker-compose")
    if not program:
        if os.environ.get("CI"):
            pytest.fail("docker-compose is not installed; CI must check the file with it")
        pytest.skip("docker-compose is not installed (Debian's package docker-compose)")
    known = {key: value for key, value in os.environ.items() if not key.startswith(("POSTGRES", "COMPOSE"))}
    command = [program, "-f", str(FILE), "--env-file", str(ROOT / ".env.example"), "config", "-q"]
    return subprocess.run(command, capture_output=True, text=True, env=known | variables, timeout=60)


def test_the_file_is_valid_against_the_compose_schema():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_docker_compose_accepts_the_file_with_a_password():
    done = config(POSTGRES_PASSWORD="x")
    assert (done.returncode, done.stderr) == (0, "")


def test_docker_compose_refuses_the_example_of_env_as_it_is_and_says_what_to_set():
    done = config()
    assert done.returncode != 0
    assert "set it in .env, see .env.example" in done.stderr


def test_no_secret_has_a_default_or_stands_in_the_file():
    text = FILE.read_text()
    variables = re.findall(r"\$\{([^}]*)\}", text)
    assert {re.split(r"[:?-]", it)[0] for it in variables} == {
        "POSTGRES_PASSWORD",
        "POSTGRES_PORT",
        "MLFLOW_PORT",
        "DASHBOARD_PORT",
    }
    assert all(it.startswith("POSTGRES_PASSWORD:?") for it in variables if "PASSWORD" in it)
    for name in EVERY:
        for key, value in service(name).get("environment", {}).items():
            if "PASSWORD" in key:
                assert str(value).startswith("${POSTGRES_PASSWORD:?")
    assert not re.search(r"://[^/\s@]*:[^/\s@]*@", text)  # no user:password@ in any address


def test_the_example_of_env_sets_nothing_and_the_real_one_is_kept_out_of_git_and_image():
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["POSTGRES_PASSWORD="]
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    assert not any(line.startswith("!.") for line in ignored)


@pytest.mark.parametrize("name", EVERY)
def test_every_port_is_on_loopback(name):
    for port in service(name).get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+|\$\{\w+:-\d+\}):\d+", port)


@pytest.mark.parametrize("name", EVERY)
def test_every_image_has_a_pinned_version(name):
    image = service(name)["image"]
    assert re.search(r":\d+\.\d+(\.\d+)?(-[a-z]+)?$", image), image


def test_the_image_is_built_from_a_pinned_base_with_pinned_packages():
    dockerfile = (ROOT / "Dockerfile").read_text()
    (base,) = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    assert re.search(r"pip install .*-c constraints\.txt '\.\[ray\]'", dockerfile)
    pinned = (ROOT / "constraints.txt").read_text()
    for package in ("mlflow", "optuna", "optuna-dashboard", "torch", "psycopg", "ray"):
        assert re.search(rf"^{package}(\[\w+\])?==", pinned, re.MULTILINE | re.IGNORECASE), package
    assert re.search(r"^USER (?!root)", dockerfile, re.MULTILINE)


def test_the_image_is_called_by_the_version_of_the_project_and_is_one_for_all_services_but_the_database():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    own = [name for name in EVERY if name != "postgres"]
    assert {service(name)["image"] for name in own} == {f"harness:{version}"}
    assert {service(name)["build"] for name in own} == {"."}


def test_what_the_dockerfile_copies_is_let_through_and_is_there():
    dockerfile = (ROOT / "Dockerfile").read_text()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (.*)", dockerfile, re.MULTILINE) for word in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_mlflow_server_answers_its_clients_by_their_names_and_runs_no_job_queue():
    command = service("mlflow")["command"]
    assert command[:2] == ["mlflow", "server"]
    assert {"--host=0.0.0.0", "--allowed-hosts=mlflow:*,localhost:*,127.0.0.1:*"} <= set(command)
    assert service("mlflow")["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert service("harness")["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "--port=5000" in command


def test_artifacts_are_served_by_the_server_and_kept_in_a_volume():
    command = service("mlflow")["command"]
    assert "--artifacts-destination=/artifacts" in command
    assert not any("no-serve-artifacts" in it or "default-artifact-root" in it for it in command)
    assert "artifacts:/artifacts" in service("mlflow")["volumes"]


def test_the_health_check_of_mlflow_would_notice_a_refused_client():
    check = " ".join(service("mlflow")["healthcheck"]["test"])
    assert "/api/2.0/mlflow/" in check  # /health and /version are exempt from the check of hosts
    assert '"Host": "mlflow:5000"' in check  # the name and port of MLFLOW_TRACKING_URI


def test_the_health_check_of_postgresql_is_by_tcp_and_names_its_database():
    check = service("postgres")["healthcheck"]["test"]
    assert check[check.index("--host") + 1] == "127.0.0.1"
    assert check[check.index("--dbname") + 1] == "optuna"


def test_mlflow_and_optuna_have_a_database_each_with_the_driver_written_out():
    script = (ROOT / "docker" / "create-databases.sql").read_text()
    assert re.findall(r"^CREATE DATABASE (\w+) OWNER harness;", script, re.MULTILINE) == ["mlflow", "optuna"]
    mounted = "./docker/create-databases.sql:/docker-entrypoint-initdb.d/create-databases.sql:ro"
    assert mounted in service("postgres")["volumes"]
    server = "postgresql+psycopg://harness@postgres:5432"
    assert f"--backend-store-uri={server}/mlflow" in service("mlflow")["command"]
    assert service("dashboard")["command"][-1] == f"{server}/optuna"
    assert service("dashboard")["command"][:3] == ["python", "-m", "harness.search.serve"]  # checks Host and Origin
    for name in ("init", "harness", "ray-head"):
        assert service(name)["environment"]["HARNESS_OPTUNA_STORAGE"] == f"{server}/optuna"
        assert service(name)["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert set(re.findall(r"postgres(?:ql)?[\w+]*://\S+?/", FILE.read_text())) == {f"{server}/"}


def test_no_service_is_a_superuser_of_the_database():
    script = (ROOT / "docker" / "create-databases.sql").read_text()
    assert "POSTGRES_USER" not in service("postgres")["environment"]  # the image makes that one a superuser
    assert "CREATE ROLE harness LOGIN PASSWORD :'password';" in script
    assert "ALTER ROLE CURRENT_USER PASSWORD NULL;" in script


def test_the_data_of_postgresql_17_is_in_a_volume():
    assert service("postgres")["image"].startswith("postgres:17.")  # 18 moved its data
    assert "postgres:/var/lib/postgresql/data" in service("postgres")["volumes"]


@pytest.mark.parametrize("name", EVERY)
def test_services_wait_until_what_they_need_works(name):
    waited = service(name).get("depends_on", {})
    assert isinstance(waited, dict)  # the short form waits for the start only
    for needed, how in waited.items():
        one_shot = service(needed).get("restart") == "no"
        assert how["condition"] == ("service_completed_successfully" if one_shot else "service_healthy")
        assert one_shot or "healthcheck" in service(needed)
    if name != "postgres":
        assert waited


@pytest.mark.parametrize("name", SERVERS)
def test_servers_come_back_and_are_watched(name):
    assert service(name)["restart"] == "unless-stopped"
    assert service(name)["healthcheck"]["test"][0] == "CMD"


def test_the_dashboard_waits_for_optunas_tables_which_it_does_not_make():
    assert service("dashboard")["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    assert service("init")["command"] == ["harness", "init"]


def test_the_harness_runs_on_a_gpu_and_only_when_asked_for():
    assert service("harness")["profiles"] == ["gpu"]
    (device,) = service("harness")["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert [name for name in EVERY if "gpu" in service(name).get("profiles", ())] == ["harness"]


def test_a_cluster_starts_only_when_asked_for_and_nobody_outside_reaches_it():
    """Ray runs the code of whoever reaches it."""
    of_cluster = [name for name in EVERY if "cluster" in service(name).get("profiles", ())]
    assert of_cluster == ["ray-head", "ray-worker"]
    assert not any("ports" in service(name) for name in of_cluster)
    assert [name for name in EVERY if "cluster" in service(name)["networks"]] == of_cluster
    assert service("ray-head")["networks"] == ["default", "database", "cluster"], "it runs the command"
    assert service("ray-worker")["networks"] == ["cluster"]
    assert not any("PASSWORD" in name or "URI" in name for name in service("ray-worker")["environment"])
    assert "--port=6379" in service("ray-head")["command"]
    assert "--address=ray-head:6379" in service("ray-worker")["command"]
    assert "container_name" not in service("ray-worker"), "--scale makes several"
    assert "--executor ray:ray-head:6379" in FILE.read_text()


def test_every_volume_is_declared_and_used_and_every_folder_of_the_image_belongs_to_its_user():
    mounts = [volume for name in EVERY for volume in service(name).get("volumes", [])]
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith(".")}
    assert named == set(compose()["volumes"])
    assert all((ROOT / mount.split(":")[0]).is_file() for mount in mounts if mount.startswith("."))
    (owned,) = re.findall(r"chown harness:harness (.*)", (ROOT / "Dockerfile").read_text())
    targets = {mount.split(":")[1] for mount in mounts if not mount.startswith((".", "postgres:"))}
    assert targets == set(owned.split())


@pytest.mark.parametrize("name", EVERY)
def test_a_service_writes_to_volumes_and_memory_alone_and_gains_no_rights(name):
    confined = service(name)
    assert confined["read_only"] is True
    assert confined["cap_drop"] == ["ALL"]
    assert confined["security_opt"] == ["no-new-privileges:true"]
    assert any(it.partition(":")[0] == "/tmp" for it in confined["tmpfs"])
    assert ("cap_add" in confined) == (name == "postgres")


def test_what_trains_has_a_compiler_and_may_load_what_it_compiles():
    """torch.compile writes to the temporary folder; Docker mounts a tmpfs `noexec` unless told otherwise."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    installed = re.findall(r"apt-get install .*", dockerfile)
    assert any({"gcc", "libc6-dev"} <= set(line.split()) for line in installed)
    assert not re.search(r"apt-get (purge|remove|autoremove)", dockerfile)
    for name in ("harness", "ray-worker"):
        folders = dict(it.partition(":")[::2] for it in service(name)["tmpfs"])
        assert "exec" in folders["/tmp"].split(",")
        assert service(name)["environment"]["TRITON_CACHE_DIR"].startswith("/tmp/")
    assert all(
        "exec" not in " ".join(service(name)["tmpfs"]) for name in EVERY if name not in ("harness", "ray-worker")
    )


def test_training_itself_compiles_nothing():
    """So that a machine without a compiler, a CUDA one too, trains all that the registry knows."""
    sources = (ROOT / "harness").rglob("*.py")
    calls = re.compile(r"torch\.compile\(|\btriton\b|_inductor|cpp_extension")
    assert [str(path) for path in sources if calls.search(path.read_text())] == []


def test_the_database_is_in_a_network_of_its_own():
    assert service("postgres")["networks"] == ["database"]
    assert all("database" in service(name)["networks"] for name in EVERY if name != "ray-worker")
