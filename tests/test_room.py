"""How many workers share a CUDA device: the decision by itself, and a real pool that follows it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from fakes import CountsNeighbours, Sized, cells_for

from harness.cuda import HOST_BYTES_A_WORKER, MOST_CLIENTS, TAKING_TURNS, most_workers
from harness.execution.executor import Demand
from harness.execution.room import AT_FIRST, Room
from harness.execution.runner import run
from harness.store.cells import Cells
from harness.trainers.trainer import DeviceMemory

GB = 10**9


def memory(free, total=80, held=3, peak=None):
    return DeviceMemory(free * GB, total * GB, held * GB, (peak or held) * GB)


@pytest.mark.parametrize("most", [1, 3, 40])
def test_a_few_start_before_anything_is_known(most):
    assert Room(most).workers == min(most, AT_FIRST)


def test_as_many_fit_as_the_memory_holds_with_a_tenth_to_spare():
    room = Room(40)
    room.note(1, memory(free=76, held=3), workers=1)  # 76 free, 3 and a context ours: all of 80
    small = Room(12)
    small.note(1, memory(free=76, held=3))
    assert (room.workers, small.workers) == (18, 12)  # 72 / (3 + 1)


def test_what_other_programs_hold_is_not_ours():
    room = Room(40)
    room.note(1, memory(free=36, held=3))  # 40 of 80 are somebody's
    assert room.workers == 9  # 36 / 4


def test_the_largest_cell_counts_and_one_always_trains():
    room = Room(40)
    room.note(1, memory(free=76, held=3))
    room.note(1, memory(free=39, held=40))
    assert room.workers == 1  # 72 / 41
    room.note(1, memory(free=76, held=3))
    assert room.workers == 1
    room.note(1, memory(free=0, total=80, held=79))
    assert room.workers == 1


def test_workers_beside_each_other_are_ours_and_one_that_ended_is_free():
    room = Room(40)
    room.note(1, memory(free=68, held=3), workers=3)  # two more have contexts, and are not heard yet: 74 at least
    assert room.workers == 16  # 0.9 * 74 / 4
    room.note(2, memory(free=65, held=3), workers=3)
    room.note(3, memory(free=68, held=3), workers=3)
    assert room.workers == 18
    room.forget(3)
    room.note(1, memory(free=72, held=3), workers=2)
    assert room.workers == 18


@pytest.mark.parametrize(
    ("given", "most"),
    [
        ({"mps": "not running"}, TAKING_TURNS),
        ({"mps": "not installed"}, TAKING_TURNS),
        ({"mps": "not running", "exclusive": True}, 1),
        ({"exclusive": True}, 16),  # the server of MPS is the one process
        ({}, 16),
        ({"num_devices": 4}, 4),
        ({"num_devices": 32}, 1),
        ({"cores": 256}, MOST_CLIENTS),
        ({"memory_bytes": 5 * HOST_BYTES_A_WORKER}, 5),
        ({"memory_bytes": 0}, 1),
    ],
)
def test_how_many_workers_a_device_gets_at_most(given, most):
    usual = {"cores": 16, "memory_bytes": 10**12, "num_devices": 1, "mps": "running", "exclusive": False}
    assert most_workers(**(usual | given)) == most


def together(tmp_path, *, gigabytes, expected, num_cells, jobs=None):
    """Trains cells that say what they take; gives how many each saw training at a time, by seed."""
    todo = cells_for(num_cells, Sized(), model__hidden_units=gigabytes, model__filters=(expected,))
    cells = Cells(tmp_path)
    run(todo, cells, devices=["cuda:0"] * 6, provenance={}, demand=Demand(most=jobs))
    assert all(cells.result(cell.key).is_finished for cell in todo)
    return dict(map(int, line.split()) for line in (tmp_path / "together").read_text().splitlines())


@pytest.mark.slow
def test_a_pool_grows_to_what_fits(tmp_path):
    assert max(together(tmp_path, gigabytes=1, expected=6, num_cells=6).values()) == 6  # 18 / 2, but 6 workers


@pytest.mark.slow
def test_a_pool_shrinks_to_what_fits_and_jobs_override_it(tmp_path):
    counted = together(tmp_path / "sized", gigabytes=8, expected=1, num_cells=9)  # 18 / 9: two at a time
    assert max(counts for seed, counts in counted.items() if seed > 5) == 2
    assert max(together(tmp_path / "jobs", gigabytes=8, expected=6, num_cells=6, jobs=6).values()) == 6


def test_what_is_tried_alone_has_no_idle_worker_beside_it_that_holds_memory(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(2, CountsNeighbours())
    run(todo, cells, devices=["cpu", "cpu"], provenance={})
    assert [(cells.folder(cell.key) / "neighbours").read_text() for cell in todo] == ["2", "1"]


ORPHAN = """
import sys
from fakes import LeavesWhenAsked, cells_for
from harness.execution.runner import run
from harness.store.cells import Cells
from pathlib import Path
run(cells_for(1, LeavesWhenAsked()), Cells(Path(sys.argv[1])), devices=["cuda:0"], provenance={})
"""


@pytest.mark.slow
def test_a_worker_on_a_cuda_device_ends_its_step_when_its_parent_is_killed(tmp_path):
    known = os.environ | {"PYTHONPATH": os.pathsep.join(it for it in sys.path if it)}
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path)], env=known)
    try:
        wait_for(tmp_path / "trains")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(tmp_path / "left")


def wait_for(path):
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)
