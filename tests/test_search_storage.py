"""Where a search is kept: made once by whoever comes first, refused where it cannot be right; who is alive."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from postgresql import postgresql_url
from searched import STUDY, plan_of

from harness.errors import TrackingError
from harness.search.locks import FileLocks, PostgresLocks
from harness.search.space import Space
from harness.search.storage import open_storage, open_study, resolve_storage, study_name

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _no_storage_from_outside(monkeypatch):
    monkeypatch.delenv("HARNESS_OPTUNA_STORAGE", raising=False)


@pytest.fixture(scope="module")
def server():
    with postgresql_url() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """A storage that nobody has used yet."""
    if request.param == "sqlite":
        return resolve_storage(None, tmp_path)
    server = request.getfixturevalue("server")
    name = f"search_{time.monotonic_ns()}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    return server.rpartition("/")[0] + f"/{name}"


def test_an_explicit_storage_goes_before_the_environment_and_that_before_the_default(monkeypatch, tmp_path):
    assert resolve_storage(None, tmp_path) == f"sqlite:///{tmp_path}/optuna.db"
    monkeypatch.setenv("HARNESS_OPTUNA_STORAGE", "postgres://me@host/search")
    assert resolve_storage(None, tmp_path) == "postgresql+psycopg://me@host/search"
    assert resolve_storage("sqlite:////else/where.db", tmp_path) == "sqlite:////else/where.db"


@pytest.mark.parametrize("given", ["mysql://me:secret@host/search", "sqlite://", "sqlite:///:memory:", "search.db"])
def test_other_storages_are_refused_without_their_password(given, tmp_path):
    with pytest.raises(TrackingError, match=r"sqlite:///.*optuna\.db\) or postgresql://") as refusal:
        resolve_storage(given, tmp_path)
    assert "secret" not in str(refusal.value)


def test_a_storage_whose_address_can_be_read_in_two_ways_is_refused_without_its_password(tmp_path):
    with pytest.raises(TrackingError, match="write @ as %40") as refusal:
        resolve_storage("postgresql://me:se@cret@host/search", tmp_path)
    assert "cret" not in str(refusal.value)


OPEN = """
import sys
sys.path[:0] = sys.argv[2].split(":")
from searched import plan_of
from harness.search.space import Space
from harness.search.storage import open_storage, open_study
with open_storage(sys.argv[1]) as (storage, locks):
    with locks.exclusive():
        print(open_study(storage, Space.of(plan_of())).study_name)
"""


def test_processes_that_start_at_once_make_the_storage_once(url):
    started = [
        subprocess.Popen([sys.executable, "-c", OPEN, url, str(TESTS)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    names = [process.communicate(timeout=60)[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert set(names) == {study_name(Space.of(plan_of()), "none")}
    with open_storage(url) as (storage, _):
        assert optuna.get_all_study_names(storage=storage) == [names[0]]


def test_a_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE experiments (name TEXT)")
    with pytest.raises(TrackingError, match="tables of another program"), open_storage(f"sqlite:///{path}"):
        pass
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("experiments",)]


def test_a_storage_of_another_optuna_says_how_to_upgrade_it(tmp_path):
    url = resolve_storage(None, tmp_path)
    with open_storage(url):
        pass
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v2.4.0.a'")
    with pytest.raises(TrackingError, match=r"optuna storage upgrade --storage sqlite:///"), open_storage(url):
        pass


def test_a_file_that_is_no_database_is_to_be_moved_away(tmp_path):
    (tmp_path / "optuna.db").write_text("notes about a search, not a database\n" * 40)
    with pytest.raises(TrackingError, match=r"not a database.*Move the file away"):
        open_storage(resolve_storage(None, tmp_path)).__enter__()


def test_a_driver_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(TrackingError, match=r"psycopg2.*Write postgresql://") as refusal:
        open_storage("postgresql+psycopg2://me:secret@127.0.0.1:9/search").__enter__()
    assert "secret" not in str(refusal.value)


def test_a_storage_that_does_not_answer_is_named_without_its_password(tmp_path):
    url = "postgresql+psycopg://me:secret@127.0.0.1:9/search"
    with pytest.raises(TrackingError, match=r"me:\*\*\*@127.*cannot be used") as refusal, open_storage(url):
        pass
    assert "secret" not in str(refusal.value)


def test_a_storage_that_breaks_in_the_middle_is_named(tmp_path):
    def use():
        with open_storage(resolve_storage(None, tmp_path)) as (storage, _):
            study = optuna.create_study(storage=storage, study_name="a")
            with storage.engine.begin() as connection:
                connection.execute(sqlalchemy.text("DROP TABLE trials"))
            study.ask()

    with pytest.raises(TrackingError, match=r"cannot be used.*same command continues"):
        use()


def test_a_study_of_the_same_name_that_minimizes_is_refused(tmp_path):
    space = Space.of(plan_of())
    with open_storage(resolve_storage(None, tmp_path)) as (storage, _):
        optuna.create_study(storage=storage, study_name=study_name(space, "none"), direction="minimize")
        with pytest.raises(TrackingError, match="is made to minimize val/accuracy, but this search is to maximize"):
            open_study(storage, space)


def test_what_alters_the_meaning_of_a_value_makes_another_study():
    other_norm = [
        it | ({"overrides": {"model.batch_norm_fc": True}} if it["name"] == "norm" else {}) for it in STUDY["changes"]
    ]
    plans = [
        plan_of(),
        plan_of(seeds=3),
        plan_of(only=("norm", "adam")),
        plan_of(study=STUDY | {"changes": other_norm}),
        plan_of(study=STUDY | {"baseline": {"data": {"kind": "shapes", "seed": 1}}}),
    ]
    names = [study_name(Space.of(plan), "none") for plan in plans]
    assert len(set(names)) == len(names)
    assert study_name(Space.of(plan_of()), "wilcoxon") == names[0]
    assert study_name(Space.of(plan_of()), "halving") not in names, "its reports are of epochs, not of seeds"


def locks_of(url):
    return (
        FileLocks(Path(url.removeprefix("sqlite:///") + ".locks")) if url.startswith("sqlite") else PostgresLocks(url)
    )


LIVE = """
import sys
sys.path[:0] = sys.argv[2].split(":")
from test_search_storage import locks_of
locks = locks_of(sys.argv[1])
print(locks.me, flush=True)
sys.stdin.read()
"""


def test_a_worker_is_alive_until_it_dies_however_it_dies(url):
    with open_storage(url) as (_, mine):
        process = subprocess.Popen(
            [sys.executable, "-c", LIVE, url, str(TESTS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stdin
        other = process.stdout.readline().strip()
        assert mine.is_alive(other)
        assert mine.is_alive(mine.me)
        assert not mine.is_alive("nobody")

        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
        deadline = time.monotonic() + 5
        while mine.is_alive(other):
            assert time.monotonic() < deadline, "its lock outlives it"
            time.sleep(0.02)


def test_a_worker_that_has_ended_is_not_alive(url):
    with open_storage(url) as (_, mine):
        with open_storage(url) as (_, other):
            assert mine.is_alive(other.me)
        assert not mine.is_alive(other.me)


def test_only_one_at_a_time_is_inside(url):
    one, other = locks_of(url), locks_of(url)
    inside = []

    def enter(locks):
        with locks.exclusive():
            inside.append(locks.me)
            assert len(inside) == 1
            time.sleep(0.05)
            inside.remove(locks.me)

    threads = [threading.Thread(target=enter, args=(locks,)) for locks in (one, other)]
    with one.exclusive():
        threads[1].start()
        time.sleep(0.1)
        assert not inside
    threads[1].join(10)
    threads[0].start()
    threads[0].join(10)
    one.close()
    other.close()
