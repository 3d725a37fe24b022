"""The runner, with trainers of a few lines and real worker processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from multiprocessing import connection, popen_forkserver

import fakes
import psutil
import pytest
from clusters import ray_cluster
from fakes import cells_for
from processes import is_alive, wait_until_dead

from harness.errors import HarnessError, StudyError
from harness.execution.executor import EXECUTORS, Died
from harness.execution.processes import Processes
from harness.execution.runner import Progress, _Runner, run
from harness.execution.todo import Todo
from harness.store.cells import Cells
from harness.trainers.run import CHECKPOINT

pytestmark = pytest.mark.slow

PROVENANCE = {"commit": "c0ffee", "dirty": True}
TWO = ["cpu", "cpu"]


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    with ray_cluster(1, 1) as made:
        yield made


@pytest.fixture(params=EXECUTORS)
def executor(request, monkeypatch):
    if request.param == "ray":
        monkeypatch.setenv("RAY_ADDRESS", request.getfixturevalue("cluster").address)
    return request.param


def calls(cells, cell):
    return (cells.folder(cell.key) / "calls").read_text().splitlines()


def test_every_cell_gets_its_result_with_provenance(tmp_path, executor):
    cells, todo = Cells(tmp_path), cells_for(5)

    run(todo, cells, devices=TWO, provenance=PROVENANCE, executor=executor)

    results = [cells.result(cell.key) for cell in todo]
    assert [result.metrics["test/accuracy"] for result in results] == [0.5, 0.51, 0.52, 0.53, 0.54]
    assert {(result.commit, result.dirty) for result in results} == {("c0ffee", True)}
    assert all(cells.events(cell.key)[0]["provenance"] == PROVENANCE for cell in todo)
    logged = [replace(it, seconds=float(it.step)) for it in cells.validations(todo[0].key)]
    assert logged == fakes.validations([10, 20])


def test_an_ended_cell_is_never_trained_again(tmp_path, executor):
    cells, todo = Cells(tmp_path), cells_for(3)

    for _ in range(2):
        run(todo, cells, devices=TWO, provenance=PROVENANCE, executor=executor)

    assert [len(calls(cells, cell)) for cell in todo] == [1, 1, 1]


def test_two_workers_share_the_cells(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(8)

    run(todo, cells, devices=["cpu", "cuda:7"], provenance=PROVENANCE)

    workers = {tuple(calls(cells, cell)[0].split()) for cell in todo}
    assert {device for _, device, _ in workers} == {"cpu", "cuda:0"}  # the only one that its worker sees
    assert {visible for _, device, visible in workers if device == "cuda:0"} == {"7"}
    assert len({pid for pid, _, _ in workers}) == 2
    assert str(os.getpid()) not in {pid for pid, _, _ in workers}


def test_one_failure_does_not_stop_the_rest_and_keeps_its_traceback(tmp_path, executor):
    cells, todo = Cells(tmp_path), cells_for(3, fakes.FailsOnSeed1())

    run(todo, cells, devices=TWO, provenance=PROVENANCE, executor=executor)

    assert [cells.result(cell.key).status for cell in todo] == ["finished", "failed", "finished"]
    assert cells.result(todo[1].key).reason == "ZeroDivisionError: planted"
    failure = next(event for event in cells.events(todo[1].key) if event["event"] == "failed")
    assert "ZeroDivisionError: planted" in failure["traceback"]


def test_a_worker_that_keeps_dying_on_a_cell_takes_only_that_cell_with_it(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(4, fakes.DiesOnSeed1())

    run(todo, cells, devices=TWO, provenance=PROVENANCE)

    assert [cells.result(cell.key).status for cell in todo] == ["finished", "failed", "finished", "finished"]
    assert "SIGKILL" in cells.result(todo[1].key).reason
    assert calls(cells, todo[1]) == ["died", "died"]  # tried once more


def test_a_worker_that_dies_before_its_cell_has_a_folder_does_not_end_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.execution.processes._work", fakes.die_at_birth)
    cells, todo = Cells(tmp_path), cells_for(2)

    run(todo, cells, devices=TWO, provenance=PROVENANCE)

    assert [cells.result(cell.key).status for cell in todo] == ["failed", "failed"]
    assert {cells.result(cell.key).reason for cell in todo} == {"the worker process ended with exit code 3"}


@pytest.mark.parametrize("deaths", [1, 3])
def test_a_worker_that_is_killed_before_it_has_read_its_orders_is_started_again(tmp_path, monkeypatch, deaths):
    """Its pipe is broken then, which once passed for a reader of the command's output that has gone: exit code 0."""
    launch, waiting = popen_forkserver.Popen._launch, [None] * deaths

    def launched(self, process):
        if waiting:
            waiting.pop()
            raise BrokenPipeError
        launch(self, process)

    monkeypatch.setattr(popen_forkserver.Popen, "_launch", launched)
    cells, todo = Cells(tmp_path), cells_for(2)
    if deaths == 3:
        with pytest.raises(HarnessError, match="3 worker processes on cpu died one after another as they started; "):
            run(todo, cells, devices=TWO, provenance=PROVENANCE)
    else:
        run(todo, cells, devices=TWO, provenance=PROVENANCE)
        assert all(cells.result(cell.key).is_finished for cell in todo)


def test_a_worker_that_dies_while_it_has_nothing_to_do_costs_no_cell(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(2)
    told = []
    with Processes(["cpu"], cells, PROVENANCE) as processes:
        for cell in todo:
            processes.submit(cell, is_alone=True)
            while not told or told[-1].cell != cell:
                processes.advance(lambda it: told.append(it) if not isinstance(it, Progress) or it.result else None)
            (worker,) = processes._workers
            worker.process.kill()
            worker.process.join()

    assert all(isinstance(it, Progress) for it in told)
    assert all(cells.result(cell.key).is_finished for cell in todo)
    assert {event["event"] for event in cells.events(todo[1].key)} == {"started", "validation", "ended"}


def test_a_worker_that_dies_between_journal_and_result_has_trained_its_cell(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(1, fakes.DiesBeforeItsResult())

    run(todo, cells, devices=TWO, provenance=PROVENANCE)

    assert cells.result(todo[0].key).is_finished
    events = [it["event"] for it in cells.events(todo[0].key)]
    assert (events.count("ended"), events[-1]) == (1, "failed")
    assert len(calls(cells, todo[0])) == 1


def test_a_cell_whose_worker_died_once_still_finishes(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(2, fakes.DiesOnce())

    run(todo, cells, devices=TWO, provenance=PROVENANCE)

    assert [cells.result(cell.key).status for cell in todo] == ["finished", "finished"]


def test_a_cell_that_another_process_trains_is_waited_for_not_trained(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(2)
    is_held, was_seen = threading.Event(), threading.Event()

    def holder():
        with cells.claim(todo[0]) as mine:
            assert mine
            is_held.set()
            assert was_seen.wait(60)
            cells.write_result(fakes.result_of(todo[0], 0.99))

    def look(progress: Progress):
        if progress.kind == "elsewhere":
            was_seen.set()

    thread = threading.Thread(target=holder)
    thread.start()
    assert is_held.wait(10)
    run(todo, cells, devices=TWO, provenance=PROVENANCE, on_progress=look)
    thread.join()

    assert cells.result(todo[0].key).metrics["test/accuracy"] == 0.99
    assert not (cells.folder(todo[0].key) / "calls").exists()


def test_progress_tells_events_and_results_of_every_cell(tmp_path, executor):
    cells, todo = Cells(tmp_path), cells_for(2)
    seen: list[Progress] = []

    run(todo, cells, devices=TWO, provenance={}, on_progress=seen.append, executor=executor)

    for cell in todo:
        kinds = [(it.kind, it.event.get("event")) for it in seen if it.cell == cell]
        assert kinds == [("event", "started"), ("event", "validation"), ("event", "validation"), ("ended", None)]
    ended = [it.result for it in seen if it.kind == "ended"]
    assert all(result is not None and result.is_finished for result in ended)


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2].split(":")
import fakes
from harness.store.cells import Cells
from harness.execution.runner import run
if __name__ == "__main__":
    run(fakes.cells_for(2, fakes.Slow()), Cells(Path(sys.argv[1])), devices=["cpu", "cpu"], provenance={})
"""


def start_slow_run(tmp_path):
    """A runner in a process of its own whose two workers are in the middle of training; their pids."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    store = tmp_path / "mlruns"
    parent = subprocess.Popen([sys.executable, str(script), str(store), ":".join(sys.path)], stderr=subprocess.DEVNULL)
    files = [Cells(store).folder(cell.key) / "pid" for cell in cells_for(2)]
    deadline = time.monotonic() + 30
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline, "the workers did not start"
        time.sleep(0.05)
    return parent, [int(file.read_text()) for file in files], Cells(store)


def test_no_worker_outlives_a_killed_parent_and_its_cells_are_free_again(tmp_path):
    parent, pids, cells = start_slow_run(tmp_path)

    parent.kill()
    parent.wait()

    wait_until_dead(pids)
    deadline = time.monotonic() + 10  # the last thread of a dying process closes its files a moment later
    while any(cells.is_claimed(cell.key) for cell in cells_for(2)):
        assert time.monotonic() < deadline, "a cell is held by nobody who lives"
        time.sleep(0.05)
    assert all(cells.result(cell.key) is None for cell in cells_for(2))


def test_an_interrupt_stops_the_workers_and_is_journalled(tmp_path):
    parent, pids, cells = start_slow_run(tmp_path)

    parent.send_signal(signal.SIGINT)
    parent.wait(timeout=60)

    wait_until_dead(pids)
    assert [cells.events(cell.key)[-1]["event"] for cell in cells_for(2)] == ["interrupted", "interrupted"]


def test_cells_are_taken_as_workers_get_free(tmp_path, executor):
    cells, todo = Cells(tmp_path), cells_for(6)
    unfinished = []

    def source():
        for taken, cell in enumerate(todo):
            unfinished.append(taken - sum(cells.result(it.key) is not None for it in todo))
            yield cell

    run(source(), cells, devices=TWO, provenance={}, executor=executor)

    assert len(unfinished) == 6
    assert max(unfinished) <= (0 if executor == "here" else 1)  # the other worker's cell


def test_nothing_at_the_moment_is_asked_again_until_there_is_nothing_more(tmp_path, executor):
    cells, todo = Cells(tmp_path), cells_for(2)

    run(
        iter([None, todo[0], None, None, todo[1]]),
        cells,
        devices=TWO,
        provenance={},
        executor=executor,
    )

    assert all(cells.result(cell.key) for cell in todo)


def test_a_stopped_cell_keeps_its_place_and_continues_there(tmp_path, executor):
    cells, todo, seen = Cells(tmp_path), cells_for(2, fakes.StepByStep()), []
    begin = {"devices": ["cpu"], "provenance": {}, "executor": executor}

    def is_far_enough(cell):
        return cell == todo[0] and len(cells.validations(cell.key)) >= 3

    run(todo, cells, on_progress=seen.append, should_stop=is_far_enough, **begin)

    assert cells.result(todo[0].key) is None
    assert cells.result(todo[1].key).is_finished, "the others go on"
    assert cells.events(todo[0].key)[-1]["event"] == "interrupted"
    assert [(it.kind, it.cell) for it in seen if it.kind != "event"] == [("stopped", todo[0]), ("ended", todo[1])]

    run(todo, cells, **begin)

    assert cells.result(todo[0].key).is_finished
    logged = [event["step"] for event in cells.events(todo[0].key) if event["event"] == "validation"]
    assert sorted(set(logged)) == list(range(1, 21))
    assert len(logged) <= 20 + 1, "it went on after its checkpoint; the step before a checkpoint may be repeated"
    (resumed,) = [event for event in cells.events(todo[0].key) if event["event"] == "resumed"]
    assert resumed["step"] >= 3


def test_a_cell_that_another_process_trains_can_be_given_up(tmp_path, executor):
    cells, (cell,) = Cells(tmp_path), cells_for(1)

    with cells.claim(cell):
        run(
            [cell],
            cells,
            devices=TWO,
            provenance={},
            should_stop=lambda cell: True,
            executor=executor,
        )

    assert cells.result(cell.key) is None


def test_an_interrupt_before_the_workers_have_started_leaves_nothing_behind(tmp_path):
    script, store = tmp_path / "script.py", tmp_path / "mlruns"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(store), ":".join(sys.path)]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while sum(it.name().startswith("python") for it in psutil.Process(parent.pid).children(recursive=True)) < 4:
        # the workers exist, and import; beside them there are the process they are forked from and a resource tracker
        assert time.monotonic() < deadline, "the workers did not start"

    parent.send_signal(signal.SIGINT)
    _, said = parent.communicate(timeout=60)

    assert "KeyboardInterrupt" in said  # beside what a worker says that was cut off while it imported
    assert "StoreError" not in said
    assert all(Cells(store).result(cell.key) is None for cell in cells_for(2))


def test_workers_start_in_a_temporary_folder_with_a_name_too_long_for_a_socket(tmp_path):
    script, store, temporary = tmp_path / "script.py", tmp_path / "mlruns", tmp_path / ("t" * 120)
    temporary.mkdir()
    script.write_text(SCRIPT.replace("Slow", "Counting"))

    subprocess.run(
        [sys.executable, str(script), str(store), ":".join(sys.path)],
        env=os.environ | {"TMPDIR": str(temporary)},
        check=True,
        timeout=120,
    )

    assert all(Cells(store).result(cell.key).is_finished for cell in cells_for(2))


def test_a_trainer_that_workers_cannot_import_stops_the_run_with_its_name(tmp_path):
    class Local(fakes.Counting):
        pass

    cells, (cell,) = Cells(tmp_path), cells_for(1, Local())

    with pytest.raises(StudyError, match="trainer: test_runner:Local cannot be imported"):
        run([cell], cells, devices=["cpu"], provenance={})

    assert cells.result(cell.key) is None


def test_out_of_memory_beside_others_is_tried_once_more_alone_before_it_is_an_outcome(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(4, fakes.NeedsAllMemory())
    run(todo, cells, devices=["cpu", "cpu"], provenance={})
    assert [cells.result(cell.key).status for cell in todo] == ["finished", "finished", "out-of-memory", "finished"]
    said = [event["reason"] for event in cells.events(todo[1].key) if event["event"] == "failed"]
    assert said == ["out of memory while other cells trained; it is tried once more, alone: too little memory"]
    outcomes = [event["status"] for event in cells.events(todo[1].key) if event["event"] == "ended"]
    assert outcomes == ["finished"], "another process must not take the first attempt for an outcome"


class HasAPool(fakes.Counting):
    """As a loader of data with workers of its own."""

    def train(self, run):
        assert multiprocessing.get_start_method() == multiprocessing.get_all_start_methods()[0], "as in any program"
        with multiprocessing.Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
        super().train(run)


def test_training_in_a_worker_may_start_processes(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(1, HasAPool())

    run(todo, cells, devices=["cpu"], provenance={})

    assert cells.result(todo[0].key).is_finished, cells.result(todo[0].key).reason


class HasChildren(fakes.FakeTrainer):
    """Trains beside two processes of its own, of which one would outlive it."""

    looks = False

    def train(self, run):
        assert not (self.looks and run.should_stop)
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=time.sleep, args=(60,), daemon=it) for it in (True, False)]
        for it in children:
            it.start()
        (run.folder / "new").write_text(" ".join(str(it.pid) for it in children))
        (run.folder / "new").rename(run.folder / "pids")
        for step in range(3000):
            time.sleep(0.02)
            if self.looks and run.should_stop:
                return
            run.log(step, **fakes.LOGGED)


class HasChildrenAndLooks(HasChildren):
    looks = True


@pytest.mark.parametrize("trainer", [HasChildren(), HasChildrenAndLooks()], ids=["at once", "when it looks"])
def test_what_training_has_started_ends_when_its_worker_is_asked_to_stop(tmp_path, trainer):
    cells, (cell,) = Cells(tmp_path), cells_for(1, trainer)
    pids = cells.folder(cell.key) / "pids"
    began = time.monotonic()

    run([cell], cells, devices=["cpu"], provenance={}, should_stop=lambda cell: pids.exists())

    wait_until_dead([int(it) for it in pids.read_text().split()], seconds=5)
    assert time.monotonic() - began < 20, "nobody waited for them: grace is 40 s"
    assert not cells.is_claimed(cell.key)


def test_what_training_has_started_ends_when_the_command_is_killed(tmp_path):
    script, (cell,) = tmp_path / "script.py", cells_for(1, HasChildren())
    script.write_text(
        SCRIPT.replace("import fakes", "import fakes, test_runner").replace(
            "2, fakes.Slow", "1, test_runner.HasChildren"
        )
    )
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), ":".join(sys.path)], stderr=subprocess.DEVNULL
    )
    pids, deadline = Cells(tmp_path).folder(cell.key) / "pids", time.monotonic() + 30
    while not pids.exists():
        assert time.monotonic() < deadline, "nothing trains"
        time.sleep(0.05)

    parent.kill()
    parent.wait()

    wait_until_dead([int(it) for it in pids.read_text().split()], seconds=10)


class LeavesAProcess(fakes.Counting):
    """As a loader of data whose workers are to be used again."""

    def train(self, run):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        (run.folder / "left").write_text(str(child.pid))
        super().train(run)


def test_what_training_leaves_behind_ends_with_its_cell_and_not_with_its_worker(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(2, LeavesAProcess())
    ended = []

    def look(progress):
        if progress.result:
            wait_until_dead([int((cells.folder(progress.cell.key) / "left").read_text())], seconds=5)
            ended.append(progress.result.is_finished)

    run(todo, cells, devices=["cpu"], provenance={}, on_progress=look)

    assert ended == [True, True]
    assert len({calls(cells, cell)[0] for cell in todo}) == 1, "the same worker"


class LeavesAProcessAndDies(fakes.Counting):
    """Its worker is killed, once, and a process that it has forked lives on."""

    def train(self, run):
        if not (run.folder / "left").exists():
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            (run.folder / "left").write_text(str(child))
            os.kill(os.getpid(), signal.SIGKILL)
        super().train(run)


def test_a_workers_death_is_noticed_while_a_process_that_it_has_forked_lives_on(tmp_path):
    cells, (cell,) = Cells(tmp_path), cells_for(1, LeavesAProcessAndDies())
    seen = []

    def look(progress):
        left = cells.folder(cell.key) / "left"
        seen.append((progress.kind, left.exists() and is_alive(int(left.read_text()))))

    run([cell], cells, devices=["cpu"], provenance={}, on_progress=look)
    os.kill(int((cells.folder(cell.key) / "left").read_text()), signal.SIGKILL)

    assert seen[-1] == ("ended", True), "it goes on at once"
    assert "elsewhere" not in {kind for kind, _ in seen}, "the lock is the worker's alone"
    assert cells.result(cell.key).is_finished
    assert [it["event"] for it in cells.events(cell.key)].count("failed") == 1, "its death is in the journal"


class DiesWithinAMessage(fakes.Counting):
    """Its worker is killed, once, while it tells something that the pipe does not hold at once."""

    def train(self, run):
        if not (run.folder / "calls").exists():
            (run.folder / "calls").write_text("died\n")
            send = connection.Connection._send

            def half(self, content, write=os.write):
                if len(content) > 100_000:
                    os.write(self._handle, bytes(content[:50_000]))
                    os.kill(os.getpid(), signal.SIGKILL)
                send(self, content)

            connection.Connection._send = half
            raise ValueError("x" * 300_000)
        super().train(run)


def test_a_worker_that_is_killed_within_a_message_has_died_like_any_other(tmp_path):
    cells, (cell,) = Cells(tmp_path), cells_for(1, DiesWithinAMessage())

    run([cell], cells, devices=["cpu"], provenance={})

    assert "the worker process ended by SIGKILL" in cells.events(cell.key)[-5]["reason"]


class Deadly:
    """An executor whose workers die with each cell; who holds the cell as that is told is the test's matter.

    Args:
        deaths: for each submission, what holds while its death is told; after those, cells end well.
    """

    is_single = True

    def __init__(self, cells, deaths):
        self._cells, self._deaths, self._cell = cells, deaths, None
        self.num_submitted = 0

    @property
    def num_free(self):
        return int(self._cell is None)

    def submit(self, cell, *, is_alone=True):
        self._cell = cell
        self.num_submitted += 1

    def advance(self, tell):
        cell, self._cell = self._cell, None
        if cell is None:
            return
        if self.num_submitted <= len(self._deaths):
            with self._deaths[self.num_submitted - 1](cell):
                tell(Died(cell, "it died"))
            return
        self._cells.write_result(fakes.result_of(cell))
        tell(Progress("ended", cell, result=self._cells.result(cell.key)))


def drain(cell, cells, executor, *, stops=lambda: False):
    told = []

    def look(progress):
        told.append((progress.kind, progress.result and progress.result.status))

    source = Todo([cell], cells, lambda cell: stops(), look)
    _Runner(source, cells, executor, {}, look, lambda cell: stops()).drain()
    return told


@pytest.mark.parametrize("is_claimed", [True, False])
def test_of_a_worker_that_was_told_to_end_nothing_is_noted_where_another_process_goes_on(tmp_path, is_claimed):
    cells, (cell,), asked = Cells(tmp_path), cells_for(1), []

    @contextmanager
    def told_to_end(cell):
        with cells.claim(cell):
            cells.append(cell.key, {"event": "started", "step": 0})
        asked.append(True)
        with cells.claim(cell) if is_claimed else nullcontext():
            yield

    told = drain(cell, cells, Deadly(cells, [told_to_end]), stops=lambda: bool(asked))

    assert told == [("stopped", None)]
    assert [it["event"] for it in cells.events(cell.key)] == ["started", *([] if is_claimed else ["interrupted"])]


def test_a_cell_that_another_process_has_claimed_since_its_worker_died_is_not_recorded_as_failed(tmp_path):
    cells, (cell,) = Cells(tmp_path), cells_for(1)

    @contextmanager
    def trained_by_another(cell):
        with cells.claim(cell):
            cells.append(cell.key, {"event": "resumed", "step": 10})
            (cells.folder(cell.key) / CHECKPOINT).write_text("theirs")
            yield
            assert (cells.folder(cell.key) / CHECKPOINT).read_text() == "theirs"
            assert [it["event"] for it in cells.events(cell.key)] == ["failed", "resumed"]
            cells.append(cell.key, {"event": "validation", "step": 11})

    told = drain(cell, cells, Deadly(cells, [nullcontext, trained_by_another]))

    assert told == [("elsewhere", None), ("ended", "finished")]


def test_a_cell_whose_workers_leave_processes_that_hold_it_is_recorded_as_failed_all_the_same(tmp_path):
    cells, (cell,) = Cells(tmp_path), cells_for(1)
    executor = Deadly(cells, [cells.claim] * 9)

    told = drain(cell, cells, executor)

    assert told == [("elsewhere", None), ("elsewhere", None), ("ended", "failed")]
    assert executor.num_submitted == 2
    assert [it["event"] for it in cells.events(cell.key)] == ["failed", "failed", "ended"]
