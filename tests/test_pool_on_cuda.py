"""A real pool of workers on the pretended CUDA device: memory that they share, a lost context, a clean stop."""

import pytest
from planted import TINY, planted_images, tiny_cell, trained
from pretended_pool import OnPretendedCuda

from harness.execution.processes import warm_up
from harness.execution.runner import run
from harness.plan.cell import make_cells
from harness.store.cells import Cells
from harness.trainers.images.settings import Settings, with_overrides
from harness.trainers.images.trainer import METRICS

pytestmark = [pytest.mark.slow, pytest.mark.ordeal]

OVERRIDES = {"training.max_epochs": 2}


def cells_of(num_seeds):
    settings = with_overrides(Settings(), TINY | OVERRIDES)
    return make_cells(OnPretendedCuda(), settings, range(num_seeds), {"data": "planted"})


def on_cpu(seed, folder):
    final = trained(tiny_cell(OVERRIDES, seed=seed), folder, planted_images()).final
    return {name: final[name] for name in METRICS.names}


def events_of(cells, cell):
    return [event["reason"] for event in cells.events(cell.key) if event["event"] == "failed"]


def test_a_pool_shares_the_memory_and_outlives_a_lost_context_and_every_cell_has_the_numbers_of_the_cpu(tmp_path):
    warm_up(*OnPretendedCuda.warm_up)
    cells, todo = Cells(tmp_path / "store"), cells_of(6)

    run(todo, cells, devices=["cuda:0"] * 3, provenance={})

    results = [cells.result(cell.key) for cell in todo]
    assert [it.status for it in results] == ["finished"] * 6, [it.reason for it in results]
    for seed, result in enumerate(results):
        assert dict(result.metrics) == on_cpu(seed, tmp_path / str(seed)), seed
    assert any("illegal memory access" in reason for reason in events_of(cells, todo[3]))
    said = [" ".join(events_of(cells, cell)) for cell in todo]
    crowded = [seed for seed, reasons in enumerate(said) if "tried once more, alone: CUDA out of memory" in reasons]
    # Three start before anything is known, and two fit: 18 of 20 GB, 7 a worker. From then on nobody is crowded out.
    assert len(crowded) == 1
    assert crowded[0] < 3


def test_a_stop_ends_the_step_and_waits_for_the_device_and_the_same_command_continues(tmp_path):
    cells, (cell,) = Cells(tmp_path / "store"), cells_of(1)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "refused").touch()

    def interrupt(progress):
        if progress.kind == "event" and progress.event["event"] == "validation":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([cell], cells, devices=["cuda:0"], provenance={}, on_progress=interrupt)

    (notes,) = (tmp_path / "store").glob("notes-*")
    said = notes.read_text().splitlines()
    assert said[-1] == "synchronized"
    assert said[-2] != "a step begins"
    assert said.count("a step begins") == said.count("a step ends")
    assert [event["event"] for event in cells.events(cell.key)][-1] == "interrupted"
    run([cell], cells, devices=["cuda:0"], provenance={})
    assert dict(cells.result(cell.key).metrics) == on_cpu(0, tmp_path / "cpu")
