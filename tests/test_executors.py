"""The contract of executors: wherever cells are trained, the store holds the same bits, and what is told is in it."""

import json

import fakes
import pytest
from clusters import ray_cluster
from fakes import LOGGED, cells_for
from own import FUNCTION, write_study

from harness.api.work import plan_work, prepare
from harness.errors import DivergedError, OutOfMemoryError, StudyError
from harness.execution.executor import EXECUTORS, Demand, Died, Progress, check_executor
from harness.execution.runner import make_executor, run
from harness.plan.cell import make_cells
from harness.store.cells import Cells
from harness.trainers.images.settings import parse_settings, with_overrides
from harness.trainers.images.trainer import ImageTrainer

pytestmark = pytest.mark.slow

PROVENANCE = {"commit": "c0ffee", "dirty": True}
VOLATILE = ("time", "seconds", "finished_at", "peak_memory_bytes", "checksum")  # when and how long, not what
OTHERS = [it for it in EXECUTORS if it != "here"]


@pytest.fixture(scope="module")
def cluster():
    """Of two nodes with a CPU each."""
    pytest.importorskip("ray")
    with ray_cluster(1, 1) as made:
        yield made


@pytest.fixture
def place(request, monkeypatch):
    """The executor of a test's parameter, ready to be made; Ray's has a cluster."""
    if request.param == "ray":
        monkeypatch.setenv("RAY_ADDRESS", request.getfixturevalue("cluster").address)
    return request.param


class Mixed(fakes.FakeTrainer):
    """Ends in another way for each seed; what it saves is a folder, and what it keeps a file."""

    def train(self, run):
        for step in range(int((run.saved() / "step").read_text()) + 1 if run.saved() else 1, 6):
            run.log(step, epoch=step / 10, **{**LOGGED, "val/accuracy": 0.9 - abs(step - 3) / 10 + run.seed / 1000})
            with run.saving() as path:
                path.mkdir()
                (path / "step").write_text(str(step))
        (run.folder / "weights").write_bytes(bytes([run.seed] * 100))
        run.note(parameters=7, device="cpu: test")
        if run.seed == 1:
            raise DivergedError("loss is not finite at epoch 4")
        if run.seed == 2:
            raise OutOfMemoryError("10 GB are too few")
        if run.seed == 3:
            raise ZeroDivisionError("planted")
        if run.seed == 4:
            run.note(variant="x")
        if run.seed != 5:
            run.finish(**{"test/accuracy": float("nan") if run.seed == 6 else 0.5})


class LogsNothing(fakes.FakeTrainer):
    def train(self, run):
        run.finish(**{"test/accuracy": 0.5})


def plain(text):
    """JSON without what differs from run to run, in the order in which it stands."""
    return json.dumps({name: it for name, it in json.loads(text).items() if name not in VOLATILE})


def tensors(content):
    """A file of weights without the order of its header, which safetensors draws at random."""
    size = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:size]), content[size:]


def contents(cells, todo):
    """Every file of the cells' folders, byte by byte, but for times."""
    found = {}
    for cell in todo:
        for path in sorted(cells.folder(cell.key).rglob("*")):
            name = f"{cell.key}/{path.relative_to(cells.folder(cell.key))}"
            if path.name == "journal.jsonl":
                found[name] = [plain(line) for line in path.read_text().splitlines()]
            elif path.name == "result.json":
                found[name] = plain(path.read_text())
            elif path.is_file():
                found[name] = tensors(path.read_bytes()) if path.suffix == ".safetensors" else path.read_bytes()
    return found


def images():
    """Two cells of a network small enough for seconds."""
    settings = parse_settings({"data": {"kind": "shapes", "train_images": 1000, "test_images": 200}})
    few = {"model.filters": [4, 8, 8], "training.max_epochs": 2, "training.precision": "float32"}
    settings = with_overrides(settings, few)
    return make_cells(ImageTrainer(), settings, [0, 1], ImageTrainer().fingerprints(settings))


def own(kind):
    def cells(folder, store):
        work = plan_work(write_study(folder / kind, kind), store=store, device="cpu", only=["wide"])
        prepare(work, work.plan.cells)
        return work.plan.cells

    return cells


KINDS = {
    "every outcome": lambda folder, store: cells_for(7, Mixed()),
    "nothing logged": lambda folder, store: cells_for(1, LogsNothing()),
    "images": lambda folder, store: images(),
    "a function": own("function"),
    "a script": own("script"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", OTHERS, indirect=True)
def test_the_store_holds_the_same_bits_wherever_cells_were_trained(tmp_path, place, kind):
    stores = {}
    for name in ("here", place):
        cells = Cells(tmp_path / name)
        todo = KINDS[kind](tmp_path, cells.root)
        # One at a time where one runs out of memory: beside others it would be tried once more, which is journalled.
        workers = 1 if kind == "every outcome" else 2
        demand = Demand(most=workers)
        run(todo, cells, devices=["cpu"] * workers, provenance=PROVENANCE, executor=name, demand=demand)
        stores[name] = contents(cells, todo)

    assert len(stores["here"]) >= 4 * len(todo)
    assert stores[place] == stores["here"]


def test_every_outcome_there_is_was_compared(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(7, Mixed())

    run(todo, cells, devices=["cpu"], provenance=PROVENANCE, executor="here")

    results = [cells.result(cell.key) for cell in todo]
    assert [it.status for it in results] == [
        "finished",
        "diverged",
        "out-of-memory",
        "failed",
        "failed",
        "failed",
        "diverged",
    ]
    assert results[0].facts == {"best_step": 3, "best_epoch": 0.3, "parameters": 7}
    assert results[0].metrics["val/accuracy"] == 0.9
    assert (cells.folder(todo[0].key) / "weights").is_file()


def until_ended(executor, cells):
    """Everything that an executor tells until each of its cells has ended or was left."""
    left, told = {cell.key for cell in cells}, []

    def tell(it):
        told.append(it)
        if not isinstance(it, Progress) or it.kind != "event":
            left.remove(it.cell.key)

    while left:
        executor.advance(tell)
    return told


def one_worker(place, cells):
    return make_executor(place, cells, devices=["cpu"], provenance=PROVENANCE, demand=Demand(most=1))


@pytest.fixture(params=EXECUTORS)
def entered(request, tmp_path, monkeypatch):
    """An executor of one worker, and its store."""
    if request.param == "ray":
        monkeypatch.setenv("RAY_ADDRESS", request.getfixturevalue("cluster").address)
    cells = Cells(tmp_path)
    with one_worker(request.param, cells) as executor:
        yield executor, cells


def test_what_is_told_is_in_the_store_already(entered):
    (executor, cells), (cell,) = entered, cells_for(1, fakes.StepByStep())
    seen = []

    def tell(it):
        journalled = cells.validations(cell.key)
        seen.append(it.kind)
        if it.kind == "event" and it.event["event"] == "validation":
            assert journalled[-1].step >= it.event["step"]
        if it.kind == "ended":
            assert it.result == cells.result(cell.key)

    executor.submit(cell)
    while "ended" not in seen:
        executor.advance(tell)

    assert seen == ["event"] * 21 + ["ended"]


def test_a_free_worker_is_counted_and_gets_one_cell_after_another(entered):
    (executor, _), todo = entered, cells_for(3)

    for cell in todo:
        assert executor.num_free == 1
        executor.submit(cell)
        assert executor.num_free == 0
        assert until_ended(executor, [cell])[-1].kind == "ended"

    assert executor.num_free == 1


def test_a_cell_that_has_ended_meanwhile_is_told_as_ended_and_not_trained(entered):
    (executor, cells), (cell,) = entered, cells_for(1)
    cells.open(cell)
    cells.write_result(fakes.result_of(cell, 0.75))

    executor.submit(cell)
    (told,) = until_ended(executor, [cell])

    assert (told.kind, told.result) == ("ended", cells.result(cell.key))
    assert not (cells.folder(cell.key) / "calls").exists()


def test_a_cell_whose_recorder_died_between_its_journal_and_its_result_has_ended(entered):
    """As if killed there: the checkpoint goes last. Without one the result was taken away, and is to be made again."""
    (executor, cells), (died, taken) = entered, cells_for(2)
    results = {cell.key: fakes.result_of(cell, 0.75) for cell in (died, taken)}
    for cell in (died, taken):
        cells.open(cell)
        cells.write_result(results[cell.key])
        (cells.folder(cell.key) / "result.json").unlink()
    (cells.folder(died.key) / "checkpoint").write_text("20")

    for cell in (died, taken):
        executor.submit(cell)
        assert until_ended(executor, [cell])[-1].kind == "ended"

    assert cells.result(died.key) == results[died.key]
    assert not (cells.folder(died.key) / "calls").exists()
    assert not (cells.folder(died.key) / "checkpoint").exists()
    assert (cells.folder(taken.key) / "calls").exists()


def test_a_cell_that_another_process_holds_is_left_to_it(entered):
    (executor, cells), (cell,) = entered, cells_for(1)

    with cells.claim(cell) as is_mine:
        assert is_mine
        executor.submit(cell)
        (told,) = until_ended(executor, [cell])

    assert told.kind == "elsewhere"
    assert cells.events(cell.key) == []


def test_a_stopped_cell_is_free_again_and_its_worker_takes_another(entered):
    (executor, cells), (first, second) = entered, cells_for(2, fakes.StepByStep())

    def tell(it):
        told.append(it)
        if it.kind == "event" and it.event.get("step") == 3:
            executor.stop(first)

    told = []
    executor.submit(first)
    while not any(it.kind == "stopped" for it in told):
        executor.advance(tell)
    assert not cells.is_claimed(first.key)
    assert cells.events(first.key)[-1]["event"] == "interrupted"
    while not executor.num_free:
        executor.advance(lambda told: None)
    executor.submit(second)
    assert until_ended(executor, [second])[-1].kind == "ended"


@pytest.mark.parametrize("place", OTHERS, indirect=True)
def test_a_worker_that_dies_is_told_with_how_and_replaced(tmp_path, place):
    cells, todo = Cells(tmp_path), cells_for(2, fakes.DiesOnSeed1())
    with one_worker(place, cells) as entered:
        entered.submit(todo[1])
        died = until_ended(entered, todo[1:])[-1]
        while not entered.num_free:
            entered.advance(lambda told: None)
        entered.submit(todo[0])
        ended = until_ended(entered, todo[:1])[-1]

    assert isinstance(died, Died)
    assert "worker" in died.reason
    assert died.is_of_cell
    assert ended.result.is_finished
    assert cells.result(todo[1].key) is None, "what is done about it is not the executor's to decide"


def test_an_executor_that_there_is_not_is_refused_with_the_nearest():
    with pytest.raises(StudyError, match=r"--executor process: expected .*Did you mean 'processes'\?"):
        check_executor("process")


def test_settings_that_were_read_before_a_checkpoint_count_as_read_after_it(tmp_path):
    """The first attempt reads `rate`, the second one everything else."""
    code = FUNCTION.replace("    s = run.settings\n", "    s = run.settings\n    first = run.saved() is None\n")
    code = code.replace("draw, s.rate, s.model.width", "draw, s.rate if first else 1.0, s.model.width")
    path = write_study(tmp_path / "study", function=code)
    work = plan_work(path, store=tmp_path / "store", device="cpu", only=["wide"])
    prepare(work, work.plan.cells)
    cell, cells = work.plan.cells[0], work.cells
    options = {"devices": ["cpu"], "provenance": {}, "executor": "here"}

    run([cell], cells, should_stop=lambda cell: len(cells.validations(cell.key)) >= 2, **options)
    assert cells.result(cell.key) is None
    run([cell], cells, **options)

    assert cells.result(cell.key).facts["settings_unread"] == "never"
