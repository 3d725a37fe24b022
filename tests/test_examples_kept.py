"""Which examples a cell got right: kept by training, read back, and what an effect says of new examples."""

import base64
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fakes import FINAL, FakeTrainer, cells_for
from PIL import Image
from planted import planted_images, tiny_cell, trained
from scipy import stats
from stats_tables import make_table
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from harness.api.work import plan_work
from harness.errors import DamagedError, ResultsError, StudyError
from harness.execution.here import run_one
from harness.files.bits import EXAMPLES_FILE, packed, unpacked
from harness.plan.manifest import Manifest, RunComparison, RunVariant
from harness.report.display import GRIDS
from harness.report.example_data import gallery_data
from harness.report.figures import draw
from harness.report.pictures import png
from harness.report.summary import methods
from harness.report.tables import EXAMPLE_COLUMNS, Tables
from harness.stats.examples import example_effect, two_way_interval
from harness.stats.intervals import t_interval
from harness.store.cells import Cells
from harness.trainers.images.data.sources import load_images
from harness.trainers.images.settings import Settings, with_overrides
from harness.trainers.images.train import build_parts
from harness.trainers.images.trainer import ImageTrainer

TEN_THOUSAND = np.random.default_rng(0).random(10_000) < 0.7


def test_ten_thousand_examples_take_a_bit_each_and_come_back():
    by_name = {"test/accuracy": TEN_THOUSAND, "val/accuracy": TEN_THOUSAND[:13]}
    content = packed(by_name)
    assert len(content) < 1250 + 2 + 60
    back = unpacked(content)
    assert back.keys() == by_name.keys()
    assert all(np.array_equal(back[name], bits) for name, bits in by_name.items())
    for damaged in (content[:-1], content + b"\0", b"[]\n", b"\xff\n"):
        with pytest.raises(ValueError, match=r"line|codec|Expecting"):
            unpacked(damaged)


def attempt(tmp_path, examples):
    class Planted(FakeTrainer):
        def train(self, run):
            run.finish(**FINAL, examples=examples)

    cells, (cell,) = Cells(tmp_path), cells_for(1, Planted())
    run_one(cell, cells, device="cpu", provenance={})
    return cells, cell.key


def test_what_finish_is_given_is_kept_with_the_cell(tmp_path):
    right = [True] * 6 + [False, True, False] + [False] * 5  # a short last byte; half, as FINAL says
    cells, key = attempt(tmp_path, {"test/accuracy": right})
    assert cells.result(key).status == "finished"
    assert cells.examples(key)["test/accuracy"].tolist() == right
    (cells.folder(key) / EXAMPLES_FILE).write_bytes(b"{}x")
    with pytest.raises(DamagedError, match="does not say which examples were right"):
        cells.examples(key)


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ({"test/accuracy": [1] * 12 + [0] * 8}, "of the 20 examples of test/accuracy 0.6 are right, but its value is"),
        ({"test/accuracy": [0.65] * 20}, "must be a row of true and false"),
        ({"test/accuracy": []}, "must be a row of true and false"),
        ({"test/accuracy": [[1, 0]]}, "must be a row of true and false"),
        ({"test/f1": [1]}, "which is not among the metrics"),
    ],
)
def test_examples_that_are_not_those_of_the_metric_are_refused(tmp_path, examples, said):
    cells, key = attempt(tmp_path, examples)
    assert said in cells.result(key).reason
    assert cells.examples(key) == {}


def test_the_image_trainer_keeps_which_test_images_were_right(tmp_path):
    run = trained(tiny_cell(), tmp_path / "a", planted_images(test=101))
    right = unpacked((tmp_path / "a" / EXAMPLES_FILE).read_bytes())["test/accuracy"]
    assert right.shape == (101,)
    assert 0 < right.mean() < 1
    assert right.mean() == pytest.approx(run.final["test/accuracy"], abs=1e-12)
    again = trained(tiny_cell(), tmp_path / "b", planted_images(test=101))
    assert np.array_equal(unpacked((tmp_path / "b" / EXAMPLES_FILE).read_bytes())["test/accuracy"], right)
    assert again.final == run.final


def crossed(n: int, size: int, generator: np.random.Generator, *, seed_sd: float, example_sd: float) -> np.ndarray:
    noise = generator.normal(size=(n, size))
    return seed_sd * generator.normal(size=(n, 1)) + example_sd * generator.normal(size=(1, size)) + noise


def test_the_two_way_variance_is_that_of_an_analysis_of_variance():
    """Mean squares by statsmodels' own two-way table; V and the degrees of freedom by their formulas, by hand."""
    d = crossed(4, 7, np.random.default_rng(1), seed_sd=0.5, example_sd=1.0)
    rows = pd.DataFrame([(s, i, d[s, i]) for s in range(4) for i in range(7)], columns=["seed", "example", "d"])
    table = anova_lm(ols("d ~ C(seed) + C(example)", rows).fit())
    squares = table["mean_sq"]
    seed, example, residual = squares["C(seed)"], squares["C(example)"], squares["Residual"]
    v = (seed + example - residual) / 28
    df = (seed + example - residual) ** 2 / (seed**2 / 3 + example**2 / 6 + residual**2 / 18)
    low, high, degrees = two_way_interval(d)
    half = stats.t.ppf(0.975, df) * np.sqrt(v)
    assert degrees == pytest.approx(df)
    assert (low, high) == (pytest.approx(d.mean() - half), pytest.approx(d.mean() + half))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_never_narrower_than_the_interval_over_seeds(seed):
    d = crossed(5, 40, np.random.default_rng(seed), seed_sd=2.0, example_sd=0.0)
    low, high, _ = two_way_interval(d)
    of_seeds = t_interval(d.mean(axis=1))
    assert low <= of_seeds[0] + 1e-12
    assert high >= of_seeds[1] - 1e-12
    assert np.isnan(two_way_interval(d[:1])).all()


@pytest.mark.slow
def test_it_covers_the_population_where_the_interval_over_seeds_does_not():
    """N = 2,000 test images, n = 10 seeds: over seeds .85, two-way .94 (STATS rule 21)."""
    generator, covered, of_seeds, studies = np.random.default_rng(0), 0, 0, 1_000
    for _ in range(studies):
        # What a seed adds to the mean, and what 2,000 images leave open of it, are about as large as there.
        d = crossed(10, 2_000, generator, seed_sd=0.02, example_sd=0.4)
        low, high, _ = two_way_interval(d)
        t_low, t_high = t_interval(d.mean(axis=1))
        covered += low <= 0 <= high
        of_seeds += t_low <= 0 <= t_high
    assert covered / studies == pytest.approx(0.95, abs=0.025)
    assert of_seeds / studies < 0.9


def tables_of(right: dict[tuple[str, int], np.ndarray], **columns) -> Tables:
    names = sorted({name for name, _ in right}, key=lambda name: name != "baseline")
    accuracies = {name: {s: float(bits.mean()) for (v, s), bits in right.items() if v == name} for name in names}
    table = make_table(accuracies, **columns)
    manifest = replace(
        table.attrs["manifest"],
        variants=tuple(RunVariant(it, () if it == "baseline" else (it,), "", "", {}) for it in names),
        comparisons=tuple(RunComparison("add-one", it, it, "baseline") for it in names if it != "baseline"),
        varied="initial weights",
        held="the test images",
    )
    table.attrs["manifest"] = manifest
    return Tables(table, load_curves=pd.DataFrame, load_examples=lambda metric: right)


@pytest.fixture
def right():
    """a makes the first fifty images right that the baseline mostly gets wrong, and loses the last ten."""
    generator = np.random.default_rng(0)
    chance = np.full(400, 0.7)
    chance[:50], chance[-10:] = 0.1, 0.95
    changed = chance.copy()
    changed[:50], changed[-10:] = 0.9, 0.05
    drawn = {("baseline", s): generator.random(400) < chance for s in range(8)}
    return drawn | {("a", s): generator.random(400) < changed for s in range(8)}


def test_the_table_of_examples_says_what_is_gained_and_lost(right):
    tables = tables_of(right)
    (row,) = tables.examples.to_dict("records")
    assert tuple(tables.examples.columns) == EXAMPLE_COLUMNS
    effect = example_effect(right, "a", "baseline")
    assert row["mean"] == pytest.approx(tables.effects["mean"].iloc[0])
    assert (row["low"], row["high"]) == (
        pytest.approx(tables.effects["low"].iloc[0]),
        pytest.approx(tables.effects["high"].iloc[0]),
    )
    assert row["population_low"] < row["low"] < row["high"] < row["population_high"]
    assert row["gained"] == int((effect.changes > 0).sum()) > 50
    assert set(np.argsort(-effect.changes)[:30]) <= set(range(50))
    assert set(np.argsort(effect.changes)[:8]) <= set(range(390, 400))
    (grid,) = GRIDS["examples"](tables)
    assert "400 test examples" in grid.notes[0]


def test_the_report_line_says_what_did_not_vary_and_what_new_examples_would_say(right):
    said = methods(tables_of(right))
    assert "between which initial weights vary" in said
    assert "Held constant: the test images." in said
    assert "new seeds on the same 400 test examples; of new examples, too: +" in said


def test_cells_that_were_tested_on_other_data_are_not_compared_example_by_example(right):
    tables = tables_of(right)
    tables.results.loc[tables.results["variant"] == "a", "data_fingerprint"] = "other"
    with pytest.raises(ResultsError, match="kept which examples"):
        _ = tables.examples


def test_a_study_without_examples_says_how_to_keep_them(right):
    tables = replace(tables_of(right), load_examples=lambda metric: {})
    with pytest.raises(ResultsError, match=r"run\.finish\(\.\.\., examples="):
        _ = tables.examples


def rows_of(cell):
    """The validation images of a cell."""
    arrays = planted_images(test=20)
    return build_parts(cell.settings, arrays, seed=cell.seed, device=torch.device("cpu")).splits.validation.rows


def test_the_split_varies_with_the_seed_where_it_is_asked_for_and_is_the_same_on_both_sides():
    vary = ImageTrainer().overrides("vary", "split")
    fixed, varying = (rows_of(tiny_cell(it, seed=1)) for it in ({}, vary))
    assert torch.equal(fixed, rows_of(tiny_cell({}, seed=2)))
    assert not torch.equal(varying, rows_of(tiny_cell(vary, seed=2)))
    assert torch.equal(varying, rows_of(tiny_cell(vary | {"optimizer.learning_rate": 0.3}, seed=1)))
    assert tiny_cell(vary).key != tiny_cell({}).key


def test_a_study_that_varies_the_split_is_another_run_and_says_so(tmp_path):
    request = {"store": tmp_path, "device": "cpu", "data": "shapes", "seeds": 2, "only": ["batch-norm"]}
    plain = plan_work("task3", **request).plan
    varying = plan_work("task3", vary="split", **request).plan
    assert plain.id != varying.id
    assert {cell.key for cell in plain.cells}.isdisjoint(cell.key for cell in varying.cells)
    assert all(it.settings.training.split_seed == "seed" for it in varying.variants)
    assert plain.manifest().held == "the test images, the training images and the split off for validation"
    assert varying.manifest().held == "the test images"
    assert varying.manifest().varied.endswith("dropout and the split off for validation")
    again = Manifest.from_json(varying.manifest().to_json())
    assert again.held == varying.manifest().held


def test_training_of_ones_own_has_no_split_to_vary(tmp_path):
    with pytest.raises(StudyError, match="--vary split: the trainer of this study"):
        FakeTrainer().overrides("vary", "split")


def pictures(places):
    return [(np.full((32, 32, 3), place % 256, dtype=np.uint8), f"class {place % 10}") for place in places]


def test_the_gallery_shows_the_ten_clearest_of_each_with_their_seeds(right):
    tables = replace(tables_of(right), load_pictures=pictures)
    data = gallery_data(tables)
    assert (data.change, data.reference, data.num_seeds, data.num_examples) == ("a", "baseline", 8, 400)
    assert [len(data.gained), len(data.lost)] == [10, 10]
    assert {it.place for it in data.gained} <= set(range(50))
    assert {it.place for it in data.lost} <= set(range(390, 400))
    gains = [it.after - it.before for it in data.gained]
    assert gains == sorted(gains, reverse=True)
    first = data.gained[0]
    assert first.after == sum(int(right["a", s][first.place]) for s in range(8))
    assert first.pixels[0, 0, 0] == first.place % 256
    assert first.label == f"class {first.place % 10}"


@pytest.mark.slow
def test_the_gallery_is_drawn_on_the_page_and_as_a_picture(right):
    data = gallery_data(replace(tables_of(right), load_pictures=pictures))
    figure = draw(data)
    assert len(figure.layout.images) == 20
    content = base64.b64decode(figure.layout.images[0].source.partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(content)))
    assert np.array_equal(shown, data.gained[0].pixels)
    assert Image.open(io.BytesIO(png(data))).size[0] == 1050


def test_large_pictures_are_made_small_and_without_any_the_figure_is_left_out(right):
    large = replace(tables_of(right), load_pictures=lambda it: [(np.zeros((200, 100, 3), np.uint8), "x") for _ in it])
    assert gallery_data(large).gained[0].pixels.shape == (50, 25, 3)
    with pytest.raises(ResultsError, match="there are no pictures of the test examples"):
        gallery_data(tables_of(right))


def test_the_image_trainer_shows_its_test_images_with_their_classes(tmp_path):
    trainer, settings = ImageTrainer(tmp_path), with_overrides(Settings(), {"data": SMALL})
    ((pixels, label), (_, other)) = trainer.example_pictures(settings, [3, 0])
    arrays = load_images(settings.data, cache=tmp_path)
    assert np.array_equal(pixels, arrays.test_images[3])
    assert (label, other) == tuple(arrays.class_names[int(arrays.test_labels[it])] for it in (3, 0))


SMALL = {"kind": "shapes", "train_images": 100, "test_images": 10}
