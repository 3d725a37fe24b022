"""Training on a Ray cluster of this machine: nodes that die and join, a driver that is stopped or killed, refusals."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fakes
import numpy as np
import pytest
from clusters import ray_cluster
from fakes import cells_for
from image_files import encoded_pixels, write_files
from own import results_of, train_study, write_study

from harness.api.searching import search
from harness.api.work import plan_work
from harness.errors import StudyError
from harness.execution.executor import Demand
from harness.execution.runner import make_executor, run
from harness.plan.cell import make_cells
from harness.store.cells import Cells
from harness.store.load import load_results
from harness.tracking.run_image import milliseconds
from harness.trainers.images.settings import parse_settings, with_overrides

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

VOLATILE = ["seconds", "finished_at", "peak_memory_bytes"]


@pytest.fixture(scope="module")
def cluster():
    """A head that trains nothing, and two nodes of a CPU each."""
    with ray_cluster(0, 1, 1) as made:
        yield made


def starts(cells, cell):
    return [event["event"] for event in cells.events(cell.key) if event["event"] in ("started", "resumed", "ended")]


@pytest.mark.ordeal
def test_cells_of_a_node_that_dies_go_on_elsewhere_and_new_nodes_are_used(tmp_path, cluster):
    cells, todo = Cells(tmp_path), cells_for(10, fakes.StepByStep())
    doomed = cluster.add_node(num_cpus=2, object_store_memory=80_000_000)
    steps: Counter[str] = Counter()  # of the cells that train, by key

    def watch(progress):
        steps[progress.cell.key] += 1
        if progress.result:
            del steps[progress.cell.key]
        if len(steps) == 4 and min(steps.values()) >= 5 and doomed in cluster.worker_nodes:  # those of both nodes
            doomed.all_processes["raylet"][0].process.kill()
            cluster.worker_nodes.discard(doomed)
            cluster.add_node(num_cpus=1, object_store_memory=80_000_000)

    run(todo, cells, devices=["cpu"], provenance={}, executor=f"ray:{cluster.address}", on_progress=watch)

    assert all(cells.result(cell.key).is_finished for cell in todo)
    told = [starts(cells, cell) for cell in todo]
    assert all(it.count("ended") == 1 for it in told), "no cell is trained to its end twice"
    lost = [cell for cell in todo if "resumed" in starts(cells, cell)]
    assert 1 <= len(lost) <= 2, "those of the two slots that died, from their checkpoints"
    reasons = {event["reason"] for cell in lost for event in cells.events(cell.key) if event["event"] == "failed"}
    assert all(it.startswith("node ") and it.endswith(" is gone") for it in reasons), reasons
    for cell in todo:
        assert [it.step for it in cells.validations(cell.key)] == list(range(1, 21))


def test_a_cell_that_kills_its_worker_is_tried_once_more_and_takes_no_other_with_it(tmp_path, cluster):
    cells, todo = Cells(tmp_path), cells_for(3, fakes.DiesOnSeed1())

    run(todo, cells, devices=["cpu"], provenance={}, executor=f"ray:{cluster.address}")

    assert [cells.result(cell.key).status for cell in todo] == ["finished", "failed", "finished"]
    assert cells.result(todo[1].key).reason.startswith("the worker on ")


@pytest.mark.ordeal
def test_images_reach_a_node_once_and_nothing_there_is_read_besides(tmp_path, cluster, monkeypatch):
    """A folder of images that the node has not: two of its workers fetch the decoded ones into its cache, once."""
    random = np.random.default_rng(0)
    names = [f"{split}/{kind}/{it}.png" for split in ("train", "test") for kind in ("a", "b") for it in range(40)]
    pictures = {it: encoded_pixels(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for it in names}
    folder, there = write_files(tmp_path / "pictures", pictures), tmp_path / "there"
    with monkeypatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(there))
        node = cluster.add_node(num_cpus=4, object_store_memory=80_000_000)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "here"))
    trainer = fakes.NotesSupplies()
    settings = parse_settings({"data": {"kind": "image-folder", "path": str(folder), "image_size": 32}})
    few = {"model.filters": [4, 8, 8], "training.max_epochs": 1, "training.batch_size": 8}
    settings = with_overrides(settings, {**few, "training.precision": "float32"})
    todo = make_cells(trainer, settings, range(4), trainer.fingerprints(settings))
    trainer.prepare([settings], store=tmp_path)
    folder.rename(tmp_path / "elsewhere")

    stores = [Cells(tmp_path / name) for name in ("far", "straight")]
    demand = Demand(cpus=2)  # which the other nodes have not
    run(todo, stores[0], devices=["cpu"], provenance={}, executor=f"ray:{cluster.address}", demand=demand)
    run(todo, stores[1], devices=["cpu"], provenance={}, executor="here")
    cluster.remove_node(node)

    assert sorted((there / "fetched").read_text().split()) == sorted(
        ["facts.json", *(f"{split}_{what}.npy" for split in ("train", "test") for what in ("images", "labels"))]
    )
    far, straight = ([cells.result(cell.key) for cell in todo] for cells in stores)
    assert {it.status for it in far} == {"finished"}
    assert [it.metrics for it in far] == [it.metrics for it in straight]


@pytest.mark.parametrize(
    ("executor", "device", "demand", "said"),
    [
        ("ray:ADDRESS", "cpu", Demand(cpus=3), r"a cell asks for 3 CPU, and no node has that\. There are .*: 1 CPU, 0"),
        ("ray:ADDRESS", "cuda", Demand(gpus=0.5), r"a cell asks for 1 CPU and 0\.5 GPU, and no node has that"),
        ("ray:ray://10.0.0.1:10001", "cpu", Demand(), "Ray Client cannot stream .* --executor ray:auto"),
        ("ray:127.0.0.1:1", "cpu", Demand(), r"ray:127\.0\.0\.1:1: cannot be reached .*ray start --head"),
    ],
)
def test_what_cannot_be_is_refused_with_what_there_is(tmp_path, cluster, executor, device, demand, said):
    executor = executor.replace("ADDRESS", cluster.address)

    with (
        pytest.raises(StudyError, match=said),
        make_executor(executor, Cells(tmp_path), devices=[device], provenance={}, demand=demand),
    ):
        pass


def ablate(path: Path, store: Path, executor: str) -> "subprocess.Popen[str]":
    """As in a terminal of its own, whatever signals the tests are deaf to."""
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = listening + "from harness.cli import main; main()"
    arguments = ["ablate", "--study", str(path), "--store", str(store), "--executor", executor, "--only", "wide"]
    usual = os.environ | {"RAY_ADDRESS": ""}
    usual.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=usual,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_checkpoints(store: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not any(store.glob("cells/*/checkpoint")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "nothing was saved"
        time.sleep(0.02)


@pytest.mark.ordeal
@pytest.mark.parametrize("kind", ["function", "script"])
def test_a_driver_that_is_killed_and_one_that_is_stopped_lose_nothing(tmp_path, cluster, kind):
    """The sources are edited meanwhile: what runs is what was planned."""
    path, store = write_study(tmp_path / "study", kind, pause=0.1), tmp_path / "store"
    _, straight = train_study(path, tmp_path / "straight", only=["wide"])

    process = ablate(path, store, f"ray:{cluster.address}")
    wait_for_checkpoints(store, process)
    process.kill()
    process.communicate()
    process = ablate(path, store, f"ray:{cluster.address}")
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode in (130, 0), said
    process = ablate(path, store, f"ray:{cluster.address}")
    said, _ = process.communicate(timeout=300)

    assert process.returncode == 0, said
    work = plan_work(path, store=store, device="cpu", only=["wide"])
    found = results_of(work)
    assert {place: it.metrics for place, it in found.items()} == {place: it.metrics for place, it in straight.items()}
    assert {place: it.facts for place, it in found.items()} == {place: it.facts for place, it in straight.items()}
    assert "resumed" in {event["event"] for cell in work.plan.cells for event in work.cells.events(cell.key)}
    assert len(load_results("own", store=store)) == 4


@pytest.mark.ordeal
def test_a_search_keeps_the_slots_of_a_cluster_filled(tmp_path, cluster):
    """It asks ahead of what it is told: no slot waits for the trial of another one to end."""
    changes = {"slow": {"rate": 0.25}, "wide": {"model.width": 16}, "flagged": {"flag": True}}
    named = [{"name": name, "overrides": overrides} for name, overrides in changes.items()]
    path = write_study(tmp_path / "study", pause=0.5, changes=named, profiles={"standard": {"seeds": 1}})

    search(path, trials=8, store=tmp_path / "store", device="cpu", jobs=2, executor=f"ray:{cluster.address}")

    cells = Cells(tmp_path / "store")
    times = [[milliseconds(event["time"]) for event in cells.events(key)] for key in cells.all_keys()]
    assert len(times) == 8
    spans = [(min(it), max(it)) for it in times]
    assert max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans) == 2
    taken = max(ended for _, ended in spans) - min(began for began, _ in spans)
    busy = sum(ended - began for began, ended in spans) / (2 * taken)
    assert busy > 0.7, busy


@pytest.mark.ordeal
def test_nothing_of_rays_own_stands_among_what_is_printed(tmp_path, cluster):
    path = write_study(tmp_path / "study")

    said, _ = ablate(path, tmp_path / "store", f"ray:{cluster.address}").communicate(timeout=300)

    assert "4 cells trained" in said
    lines = said.replace(str(tmp_path), "").splitlines()  # which names this test
    assert not [line for line in lines if "ray" in line.lower() and "on ray (" not in line], said


def test_a_node_with_another_version_of_what_computes_is_refused(tmp_path, monkeypatch):
    """As the node's Python would find it installed."""
    installed = tmp_path / "installed" / "numpy-0.0.1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    paths = [str(installed.parent), os.environ.get("PYTHONPATH", "")]
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        with ray_cluster(1) as other:
            executor = make_executor(f"ray:{other.address}", Cells(tmp_path), devices=["cpu"], provenance={})
            with pytest.raises(StudyError, match=r"node .* has numpy 0\.0\.1, but here it is python"), executor:
                pass
