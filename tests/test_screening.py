"""Screening: Hadamard matrices, the design, and what it finds of planted effects."""

from itertools import combinations

import pytest
from own import STUDY, train_study, write_study
from repository import OTHER_START, RATE, START, TinyRepository

from harness.api.ablation import Ablation
from harness.api.work import plan_work, save_manifest
from harness.cli.screen import Screen
from harness.cli.table import print_effects
from harness.errors import StudyError
from harness.study.designs.hadamard import hadamard, order_of

# Of ten changes, in sd of one run; the other thirty do nothing.
PLANTED = (2.0, 2.0, 1.5, 1.5, 1.0, -1.0, -1.5, -1.5, -2.0, -2.0)
NOISY = f"""
import random
import harness

def train(run):
    on = [index for index in range(40) if run.settings[f"k{{index}}"]]
    total = sum(effect for index, effect in enumerate({PLANTED}) if index in on)
    score = total + random.Random(repr((run.seed, on))).gauss(0, 1)
    run.log(1, **{{"val/score": score}})
    run.finish(**{{"test/score": score / 100}})
"""


def screened(folder, count=40, **study):
    settings = {f"k{index}": 0 for index in range(count)}
    changes = [{"name": f"c{index}", "overrides": {f"k{index}": 1}} for index in range(count)]
    told = {"baseline": {**STUDY["baseline"], **settings}, "changes": changes, "designs": ["screening"], **study}
    return write_study(folder, function=NOISY, **told)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 12, 20, 28, 36, 44, 51, 76, 93, 120, 201])
def test_a_hadamard_matrix_has_orthogonal_rows_and_ones_at_its_edges(size):
    order = order_of(size)
    matrix = hadamard(order)

    assert size <= order == len(matrix)
    assert {entry for row in matrix for entry in row} <= {1, -1}
    assert {*matrix[0], *(row[0] for row in matrix)} == {1}
    for first, second in combinations(matrix, 2):
        assert sum(a * b for a, b in zip(first, second, strict=True)) == 0


def test_orders_are_the_least_that_the_constructions_reach():
    missing = {52, 92, 100, 116, 156, 172, 184, 188, 232, 236, 244}
    reached = [1, 2, *(order for order in range(4, 257, 4) if order not in missing)]
    assert sorted({order_of(size) for size in range(1, 257)}) == reached


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 11, 40, 100])
def test_each_change_is_in_half_of_the_variants_and_free_of_interactions(tmp_path, count):
    path = screened(tmp_path, count)

    plan = plan_work(path, store=tmp_path, device="cpu", seeds=1).plan

    names = [change.name for change in plan.study.changes]
    levels = [[1 if name in variant.changes else -1 for name in names] for variant in plan.variants]
    assert len(levels) == len({tuple(row) for row in levels}) == 2 * order_of(count + 1)
    columns = list(zip(*levels, strict=True))
    assert {sum(column) for column in columns} == {0}
    chosen = columns if count < 50 else columns[:12]  # every triple of 100 takes a while
    for first, second in combinations(chosen, 2):
        assert sum(a * b for a, b in zip(first, second, strict=True)) == 0
        both = [a * b for a, b in zip(first, second, strict=True)]
        assert {sum(a * b for a, b in zip(both, column, strict=True)) for column in chosen} == {0}
    assert plan.variants[0].changes == ()


def test_one_change_is_screened_by_itself(tmp_path):
    plan = plan_work(screened(tmp_path, 1), store=tmp_path, device="cpu", seeds=1).plan
    assert [variant.changes for variant in plan.variants] == [(), ("c0",)]


def test_without_the_mirror_it_is_half_as_large_and_says_what_is_confused(tmp_path):
    path = screened(tmp_path)

    plain = plan_work(path, store=tmp_path, device="cpu", seeds=1, designs=("screening:plain",)).plan
    folded = plan_work(path, store=tmp_path, device="cpu", seeds=1).plan

    assert (len(plain.variants), len(folded.variants)) == (44, 88)
    for name in (change.name for change in plain.study.changes):
        assert sum(name in variant.changes for variant in plain.variants) == 22
    assert "confused in part with every interaction of two other changes" in plain.notes[0]
    assert "confused with no interaction of two changes" in folded.notes[0]
    # (z(1 - .05 / 80) + z(.8)) * 2 / sqrt(88) = (3.2272 + .8416) * .2132
    assert "finds an effect of 0.87 sd of one run with power 0.8, corrected over 40 changes" in folded.notes[1]


def test_what_cannot_be_a_factor_is_left_out_by_name(tmp_path):
    repository = TinyRepository(tmp_path)
    start = repository.commit("start", START)
    more = repository.commit("more", {"training.py": ("score = 1.0", "score = 3.0")}, onto=start)
    changes = [
        {"name": "start", "commit": start},
        {"name": "other", "commit": repository.commit("other", OTHER_START)},
        {"name": "more", "commit": more, "needs": "start"},
        {"name": "rate", "commit": repository.commit("rate", RATE)},
    ]
    path = repository.study(changes=changes, designs=["screening"])

    plan = plan_work(path, store=tmp_path / "mlruns", device="cpu", seeds=1).plan

    assert {it.changes for it in plan.variants} == {(), ("start",), ("rate",), ("start", "rate")}
    assert plan.notes[0].startswith("screening: without more: what needs another change is no two-level factor")
    assert plan.notes[1].startswith("screening: without other: changes 'start' and 'other' do not merge")


def test_more_changes_than_it_takes_are_refused(tmp_path):
    path = screened(tmp_path, 201, designs=["add-one"])
    with pytest.raises(StudyError, match="201 changes, more than 200"):
        plan_work(path, store=tmp_path, device="cpu", seeds=1, designs=("screening",))


@pytest.mark.slow
def test_planted_effects_are_found_and_no_useless_change_is(tmp_path, capsys):
    path = screened(tmp_path / "study")

    work, _ = train_study(path, tmp_path / "store", seeds=2)
    save_manifest(work)
    marginal = _marginal(work)
    print_effects(Screen(width=200), Ablation(work, {}).results)
    said = capsys.readouterr().out

    found = {name: row["mean"] for name, row in marginal.items() if row["p_holm"] < 0.05}
    assert set(found) <= {f"c{index}" for index in range(10)}
    assert {f"c{index}" for index, effect in enumerate(PLANTED) if abs(effect) >= 1.5} <= set(found)
    # The standard error of a contrast over 176 cells is 2 sd / sqrt(176) = .151 sd, or .00151 as it is reported.
    for index, effect in enumerate(PLANTED):
        assert marginal[f"c{index}"]["mean"] == pytest.approx(effect / 100, abs=5 * 0.00151)
    rows = {line.split()[0]: line for line in said.splitlines() if line.strip().endswith(("improves", "hurts"))}
    assert {name for name, line in rows.items() if line.strip().endswith("improves")} == {
        name for name, mean in found.items() if mean > 0
    }
    assert "--design add-one --only c" in said
    assert "--seeds 2,3,4,5,6,7,8,9,10,11" in said
    assert "biggest single improvement" not in said


def _marginal(work):
    from harness.report.tables import Tables

    tables = Tables(Ablation(work, {}).results, load_curves=None)
    return {row["change"]: row for row in tables.marginal.to_dict("records")}
