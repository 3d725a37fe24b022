"""Locks between processes: on shared disks, too, and of files that their holder removes."""

import errno
import fcntl
import os
import signal
import threading
import time

import pytest

from harness.files import locks
from harness.files.locks import is_locked, lock_problem, locked, trying
from harness.files.presence import present, unseen_by_locks


@pytest.fixture
def nfs4(monkeypatch):
    """NFS 4 makes locks of ranges of them: exclusive ones need a file that can be written, shared ones one to read."""
    real = fcntl.flock

    def flock(file, operation):
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if (operation & fcntl.LOCK_EX and mode == os.O_RDONLY) or (operation & fcntl.LOCK_SH and mode == os.O_WRONLY):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_locks_hold_on_a_disk_that_is_shared_by_nfs4(tmp_path, nfs4):
    path = tmp_path / "lock"
    with locked(path, shared=True), locked(path, shared=True):
        assert is_locked(path)
        with trying(path) as is_ours:
            assert not is_ours
    assert not is_locked(path)
    assert lock_problem(tmp_path) == ""


def test_a_disk_that_grants_shared_locks_beside_others_is_noticed(tmp_path, monkeypatch):
    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None if how & fcntl.LOCK_SH else real(file, how))
    assert lock_problem(tmp_path) == "two processes got the same lock"


def test_whether_a_file_is_locked_that_may_only_be_read(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    with locked(path):
        real = type(path).open
        monkeypatch.setattr(type(path), "open", lambda self, mode="r": _refused() if "+" in mode else real(self, mode))
        assert is_locked(path)
    assert not is_locked(path)


def _refused():
    raise PermissionError(errno.EACCES, "Permission denied")


def test_who_waited_for_a_lock_whose_file_was_removed_waits_for_the_new_one(tmp_path, monkeypatch):
    path, asks, has_it = tmp_path / "lock", threading.Event(), threading.Event()

    def flock(file, how, real=fcntl.flock):
        if threading.current_thread() is waiting:
            asks.set()
        real(file, how)

    def wait():
        with locked(path):
            has_it.set()

    waiting = threading.Thread(target=wait)
    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locked(path):
        waiting.start()
        assert asks.wait(5)
        path.unlink()  # as who forgets a study run
        new = path.open("a+")
        fcntl.flock(new, fcntl.LOCK_EX)
    assert not has_it.wait(0.2)
    new.close()
    assert has_it.wait(5)
    waiting.join()


def test_who_arrives_is_locked_as_soon_as_it_can_be_seen(tmp_path, monkeypatch):
    def flock(file, how, real=fcntl.flock):
        assert not list(tmp_path.glob("[!.]*"))
        real(file, how)

    with monkeypatch.context() as context:
        context.setattr(fcntl, "flock", flock)
        presence = present(tmp_path)
        presence.__enter__()
    (path,) = tmp_path.iterdir()
    assert is_locked(path)
    assert unseen_by_locks(tmp_path) == ""
    presence.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_holds_no_lock_of_its_parent(tmp_path):
    path, held = tmp_path / "lock", os.pipe()
    parent = os.fork()
    if not parent:
        with locked(path), trying(tmp_path / "other"):
            child = os.fork()
            if not child:
                time.sleep(60)
            os.write(held[1], f"{child}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
    child = int(os.read(held[0], 20))
    try:
        os.waitpid(parent, 0)
        os.kill(child, 0)  # it lives
        assert not is_locked(path)
        assert not is_locked(tmp_path / "other")
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_is_held_while_a_forked_child_comes_and_goes(tmp_path):
    with locked(tmp_path / "lock"):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        assert is_locked(tmp_path / "lock")
