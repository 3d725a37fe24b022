"""The folder of cells: what is on disk at every moment."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import cells_for, epoch, result_of, validations

from harness.errors import DamagedError, StoreError
from harness.files.atomic import put_back, replace_synced, write_atomically
from harness.plan.cell import Cell
from harness.plan.extension import extended
from harness.plan.manifest import Manifest, RunVariant
from harness.store.cells import Cells
from harness.trainers.images.trainer import METRICS


def test_a_cell_reads_back_equal_from_its_folder(tmp_path):
    cells, (cell, *_) = Cells(tmp_path), cells_for()

    cells.open(cell)

    assert cells.spec(cell.key) == cell


def test_an_edited_specification_is_not_taken_for_the_cell(tmp_path):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    path = cells.open(cell) / "spec.json"
    spec = json.loads(path.read_text())
    spec["settings"]["optimizer"]["learning_rate"] = 0.5
    path.write_text(json.dumps(spec))

    with pytest.raises(StoreError, match=f"{cell.key}: this version would train something else"):
        Cell.from_json(json.loads(path.read_text()))


@pytest.mark.parametrize("damage", ["", '{"key": "', "[]", "garbage", "edited", "folder"])
def test_a_damaged_specification_is_written_again_by_whoever_claims_the_cell(tmp_path, damage):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    path = cells.open(cell) / "spec.json"
    whole = path.read_text()
    if damage == "folder":
        a_folder(path)
    else:
        path.write_text(whole.replace('"seed": 0', '"seed": 7') if damage == "edited" else damage)
        assert path.read_text() != whole
    if damage != "edited":
        with pytest.raises(DamagedError, match=r"spec\.json: is no specification"):
            cells.spec(cell.key)

    with cells.claim(cell) as is_mine:
        assert is_mine

    assert path.read_text() == whole


def test_a_specification_of_the_first_format_is_left_as_it_is(tmp_path):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    path = cells.open(cell) / "spec.json"
    path.write_text(json.dumps({"key": cell.key, "settings": {}}))

    cells.open(cell)

    assert json.loads(path.read_text()) == {"key": cell.key, "settings": {}}


def test_what_is_no_event_in_a_journal_is_passed_over(tmp_path):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    cells.open(cell)
    cells.append(cell.key, epoch(10))
    with (cells.folder(cell.key) / "journal.jsonl").open("ab") as journal:
        for line in (b"5", b"[]", b"\xff\xfe", b'{"event": 3}', b'{"event": "validation"}', b"[" * 100_000, b"null"):
            journal.write(line + b"\n")
        journal.write(b'{"time": "yesterday", "event": "validation", "step": 3, "metrics": {}}\n')
        journal.write(b'{"time": "2026-01-01", "event": "validation", "step": 3, "metrics": {"val/loss": "x"}}\n')
    cells.append(cell.key, {"event": "validation"})
    cells.append(cell.key, epoch(20))

    assert [it.get("step") for it in cells.events(cell.key)] == [10, None, 20]
    assert cells.validations(cell.key) == validations([10, 20])


@pytest.mark.parametrize("name", ["journal.jsonl", "lock"])
def test_a_folder_where_a_file_should_be_is_named(tmp_path, name):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    (cells.open(cell) / name).mkdir()

    with pytest.raises(StoreError, match=name), cells.claim(cell):
        cells.append(cell.key, epoch(10))
    if name == "journal.jsonl":
        with pytest.raises(DamagedError, match=name):
            cells.events(cell.key)
    assert not cells.is_claimed(cell.key)


def test_half_a_line_of_a_dying_writer_is_passed_over_and_the_next_event_is_whole(tmp_path):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    cells.open(cell)
    cells.append(cell.key, epoch(10))
    with (cells.folder(cell.key) / "journal.jsonl").open("a") as journal:
        journal.write('{"event": "valida')

    cells.append(cell.key, epoch(20))

    assert [event["step"] for event in cells.events(cell.key)] == [10, 20]


def test_validations_keep_the_last_of_each_step_in_order_and_forget_a_restarted_attempt(tmp_path):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    cells.open(cell)
    for event in ({"event": "started"}, epoch(10), {"event": "restarted"}, epoch(20, 9.0), epoch(10), epoch(20)):
        cells.append(cell.key, event)

    assert cells.validations(cell.key) == validations([10, 20])


def test_a_result_reads_back_equal_and_drops_the_checkpoint(tmp_path):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    (cells.open(cell) / "checkpoint").write_bytes(b"x")
    result = result_of(cell, 0.71)

    cells.write_result(result)

    assert cells.result(cell.key) == result
    assert not (cells.folder(cell.key) / "checkpoint").exists()
    assert cells.events(cell.key)[-1]["metrics"]["test/accuracy"] == 0.71


def edited(**fields):
    """What stands in the file is replaced in part, its checksum left as it was."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def of_an_older_format(**fields):
    """The same without a checksum."""

    def edit(path):
        data = json.loads(path.read_text()) | fields
        path.write_text(json.dumps({name: it for name, it in data.items() if name != "checksum"}))

    return edit


def a_folder(path):
    path.unlink()
    path.mkdir()


WRONG_RESULTS = [
    (lambda path: path.write_text('{"key": "x"'), "Expecting"),
    (lambda path: path.write_bytes(b"\xff\xfe\x00"), "decode"),
    (lambda path: path.write_text("[" * 100_000), "recursion"),
    (lambda path: path.write_text("[]"), "missing"),
    (a_folder, "Is a directory"),
    (edited(seed=7), "checksum does not fit"),
    (edited(metrics={"test/accuracy": 99.5}), "checksum does not fit"),
    (edited(reason="better than it was"), "checksum does not fit"),
    (of_an_older_format(key="0" * 16), "result of cell 0000000000000000"),
    (of_an_older_format(seed=7), "its seed is 7, that of the cell is 0"),
    (of_an_older_format(seed=True), "seed is True"),
    (of_an_older_format(status="weird"), "status is 'weird', not one of finished"),
    (of_an_older_format(metrics={"test/accuracy": float("nan")}), "test/accuracy is nan, no finite"),
    (of_an_older_format(metrics={"test/accuracy": "0.5"}), "test/accuracy is '0.5', no finite"),
    (of_an_older_format(metrics=[]), r"metrics is \[\]"),
    (of_an_older_format(seconds=-1.0), "seconds is -1.0"),
    (of_an_older_format(dirty="no"), "dirty is 'no'"),
]


@pytest.mark.parametrize(("spoil", "said"), WRONG_RESULTS)
def test_a_result_that_the_harness_did_not_write_for_this_cell_is_refused(tmp_path, spoil, said):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    cells.open(cell)
    cells.write_result(result_of(cell))

    spoil(cells.folder(cell.key) / "result.json")

    with pytest.raises(StoreError, match=rf"(?s){cell.key}/result\.json: .*{said}.*move it out of the store"):
        cells.result(cell.key, seed=cell.seed)


def test_a_result_of_before_checksums_and_one_with_other_spaces_are_read(tmp_path):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    cells.open(cell)
    cells.write_result(result_of(cell))
    path = cells.folder(cell.key) / "result.json"
    assert len(json.loads(path.read_text())["checksum"]) == 64

    edited()(path)
    assert cells.result(cell.key) == result_of(cell)
    of_an_older_format()(path)
    assert cells.result(cell.key) == result_of(cell)


def test_a_claim_excludes_other_processes_and_ends_with_its_process(tmp_path):
    cells, (cell, *_) = Cells(tmp_path), cells_for()
    cells.open(cell)
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "from pathlib import Path; from fakes import cells_for; from harness.store.cells import Cells\n"
        "with Cells(Path(sys.argv[1])).claim(cells_for()[0]) as mine: print(mine, flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), ":".join(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"

    with cells.claim(cell) as is_mine:
        assert not is_mine
    assert cells.is_claimed(cell.key)

    holder.kill()
    holder.communicate()
    with cells.claim(cell) as is_mine:
        assert is_mine
    assert not cells.is_claimed(cell.key)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(StoreError, match="cannot be written"):
        Cells(tmp_path / "mlruns").open(cells_for()[0])


def test_a_store_below_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "mlruns").write_text("a file, not a folder")

    with pytest.raises(StoreError, match=r"cannot be written.*--store"):
        Cells(tmp_path / "mlruns").open(cells_for()[0])


@pytest.mark.parametrize("dies_at", ["fsync", "rename"])
def test_a_death_while_a_folder_is_replaced_leaves_the_one_that_was_there(tmp_path, monkeypatch, dies_at):
    old, new = tmp_path / "checkpoint", tmp_path / ".saving"
    for path in (old, new):
        path.mkdir()
        (path / "weights").write_text(path.name)
    real = {"fsync": os.fsync, "rename": Path.rename}[dies_at]

    def dying(path, *arguments):
        if dies_at == "rename" and path != new:
            return real(path, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(os if dies_at == "fsync" else Path, dies_at, dying)
    with pytest.raises(KeyboardInterrupt):
        replace_synced(new, old)
    monkeypatch.undo()
    put_back(old)
    assert (old / "weights").read_text() == "checkpoint"

    replace_synced(new, old)
    put_back(old)
    assert (old / "weights").read_text() == ".saving"
    assert [it.name for it in tmp_path.iterdir()] == ["checkpoint"]


def test_an_atomic_write_leaves_no_temporary_file(tmp_path):
    write_atomically(tmp_path / "a.json", "1")
    write_atomically(tmp_path / "a.json", "2")

    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "2"


def manifest(*seeds):
    """A study run whose baseline has these seeds."""
    baseline = RunVariant("baseline", (), "", "settings", {seed: f"key-{seed}" for seed in seeds})
    return Manifest(
        id="study",
        study="study",
        title="Study",
        profile="standard",
        exploratory=False,
        metrics=METRICS,
        trainer={"kind": "images"},
        fingerprints={},
        baseline={},
        variants=(baseline,),
        comparisons=(),
    )


def test_a_manifest_that_several_update_at_once_loses_nothing(tmp_path):
    cells = Cells(tmp_path)

    def add(number):
        with cells.updating_manifest("study"):
            known = cells.manifests().get("study", manifest())
            time.sleep(0.01)
            cells.write_manifest(extended(known, manifest(number)))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (variant,) = cells.manifests()["study"].variants
    assert variant.cells == {seed: f"key-{seed}" for seed in range(8)}


def test_a_study_run_that_was_deleted_or_damaged_meanwhile_is_said_in_a_sentence(tmp_path):
    cells = Cells(tmp_path)
    cells.write_manifest(manifest(0))
    assert cells.known_manifest("study") == manifest(0)

    (tmp_path / "studies" / "study.json").write_text("{")
    with pytest.raises(DamagedError, match=r"study\.json: is no manifest that this harness can read"):
        cells.known_manifest("study")

    cells.remove_manifest("study")
    with pytest.raises(StoreError, match="the study run study was deleted meanwhile; the same command makes it again"):
        cells.known_manifest("study")


def test_writers_with_the_same_process_id_do_not_disturb_each_other(tmp_path):
    """Threads here; containers on several machines have few ids, too, and one disk."""
    path = tmp_path / "spec.json"

    def write(letter):
        for _ in range(100):
            write_atomically(path, letter * 1000)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, "ab"))

    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert os.listdir(tmp_path) == ["spec.json"]
