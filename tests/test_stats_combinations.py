"""Interactions and Shapley values: by hand, against all orders, and with their exact sums."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from stats_tables import make_table

from harness.errors import ResultsError
from harness.stats import effects, factorial_interactions, interactions, paired_effect, shapley_values

CHANGES = ("c", "a", "b")


def factorial_table(changes: tuple[str, ...] = CHANGES, n: int = 4, seed: int = 0) -> pd.DataFrame:
    """A complete factorial of random numbers: every effect and interaction of every order is there."""
    draw = np.random.default_rng(seed)
    cells: dict[str, list[float]] = {}
    held: dict[str, str] = {}
    for size in range(len(changes) + 1):
        for chosen in combinations(changes, size):
            name = "+".join(chosen) or "baseline"
            cells[name] = [float(x) for x in draw.uniform(0.6, 0.8, n)]
            held[name] = "+".join(chosen)
    return make_table(cells, held)


def values_of(table: pd.DataFrame) -> dict[frozenset[str], np.ndarray]:
    by_name = {name: rows.sort_values("seed")["test/accuracy"].to_numpy() for name, rows in table.groupby("variant")}
    return {frozenset() if name == "baseline" else frozenset(name.split("+")): y for name, y in by_name.items()}


def test_an_interaction_by_hand() -> None:
    # Per seed: .75 - .72 - .71 + .70 = .02 and .76 - .74 - .71 + .70 = .01
    table = make_table(
        {"both": [0.75, 0.76], "a": [0.72, 0.74], "b": [0.71, 0.71], "baseline": [0.70, 0.70]}, {"both": "b+a"}
    )
    row = interactions(table, [("b", "a")]).iloc[0]
    assert (row["variant"], row["n"], row["verdict"]) == ("b x a", 2, "exploratory")
    assert (row["mean"], row["sd"]) == pytest.approx((0.015, 0.01 / np.sqrt(2)))


def test_interactions_use_the_machinery_of_effects() -> None:
    table = factorial_table(n=10)
    y = values_of(table)
    row = interactions(table, [("a", "b")]).iloc[0]
    per_seed = y[frozenset("ab")] - y[frozenset("a")] - y[frozenset("b")] + y[frozenset()]
    as_if = make_table({"baseline": [0.0] * 10, "i": list(per_seed)})
    pair = paired_effect(as_if, "i")
    for name in ("mean", "sd", "low", "high", "bca_low", "p", "p_t", "wins", "p_improve_low"):
        assert row[name] == pytest.approx(getattr(pair, name), rel=1e-9), name


def test_by_default_every_pair_seen_is_a_member_of_the_family() -> None:
    family = interactions(factorial_table())
    assert family["variant"].tolist() == ["a x b", "a x c", "b x c"]
    assert (family["m"] == 3).all()


def test_an_interaction_whose_combination_is_missing_says_which_cells_lack() -> None:
    table = factorial_table(n=2)
    table = table[table["variant"] != "a+b"]
    assert len(interactions(table)) == 2
    row = interactions(table, [("a", "b")]).iloc[0]
    assert row["verdict"] == "no results"
    assert row["missing"] == "a+b seed 0 not planned, a+b seed 1 not planned"


def test_without_any_pair_the_design_is_named() -> None:
    with pytest.raises(ResultsError, match="use the design `pairs`"):
        interactions(make_table({"baseline": [0.7], "a": [0.7], "b": [0.7]}))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_shapley_values_are_the_average_over_all_orders(k: int) -> None:
    changes = tuple("dbac"[:k])
    table = factorial_table(changes)
    y = values_of(table)
    expected = {change: np.zeros(4) for change in changes}
    orders = list(permutations(changes))
    for order in orders:
        for position, change in enumerate(order):
            before = frozenset(order[:position])
            expected[change] += (y[before | {change}] - y[before]) / len(orders)
    family = shapley_values(table)
    assert family["variant"].tolist() == sorted(changes)
    for row in family.itertuples():
        assert row.mean == pytest.approx(expected[row.variant].mean(), rel=1e-9)
        assert row.sd == pytest.approx(expected[row.variant].std(ddof=1), rel=1e-9)


def test_shapley_values_add_up_to_the_full_combination() -> None:
    table = factorial_table(tuple("abcde"))
    total = paired_effect(table, "a+b+c+d+e").mean
    assert shapley_values(table)["mean"].sum() == pytest.approx(total, rel=1e-9)


def test_the_shapley_value_of_one_change_is_its_effect() -> None:
    table = factorial_table(("a",))
    assert shapley_values(table)["mean"].iloc[0] == effects(table)["mean"].iloc[0]


def test_ten_changes_are_the_most_that_are_exact() -> None:
    ten = factorial_table(tuple("abcdefghij"), n=2)
    assert len(shapley_values(ten)) == 10
    with pytest.raises(ResultsError, match="1 to 10 changes, not 11"):
        shapley_values(ten, [*"abcdefghij", "k"])


def test_an_incomplete_factorial_is_refused_and_its_holes_are_named() -> None:
    table = factorial_table()
    holes = table[~table["variant"].isin(["a+b", "c+b"])]
    with pytest.raises(ResultsError, match=r"of a, b, c is not complete: 2 of 8 .* \(a\+b, b\+c\)"):
        shapley_values(holes)
    assert len(shapley_values(holes, ["a", "c"])) == 2  # the factorial of these two is there


def test_a_failed_cell_takes_its_seed_out_of_every_shapley_value_and_is_named() -> None:
    table = factorial_table()
    lost = (table["variant"] == "a+b") & (table["seed"] == 2)
    table.loc[lost, ["status", "test/accuracy"]] = ["failed", np.nan]
    family = shapley_values(table)
    assert (family["n"] == 3).all()
    assert (family["missing"] == "a+b seed 2 failed").all()


def test_interactions_of_a_two_change_factorial_are_plain_interactions() -> None:
    table = factorial_table(("a", "b"))
    plain, averaged = interactions(table), factorial_interactions(table)
    assert averaged["variant"].tolist() == ["a x b"]
    assert averaged["mean"].tolist() == pytest.approx(plain["mean"].tolist(), rel=1e-12)


def test_interactions_of_a_larger_factorial_average_over_the_backgrounds() -> None:
    # k = 3: the pair without and with the third change, (k - 2)! / (k - 1)! = 1/2 each.
    table = factorial_table()
    y = {held: numbers.mean() for held, numbers in values_of(table).items()}
    alone = y[frozenset("ab")] - y[frozenset("a")] - y[frozenset("b")] + y[frozenset()]
    with_c = y[frozenset("abc")] - y[frozenset("ac")] - y[frozenset("bc")] + y[frozenset("c")]
    family = factorial_interactions(table).set_index("variant")
    assert family.index.tolist() == ["a x b", "a x c", "b x c"]
    assert family.loc["a x b", "mean"] == pytest.approx((alone + with_c) / 2, rel=1e-9)


def test_row_order_and_the_order_of_changes_never_matter() -> None:
    table = factorial_table()
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(shapley_values(shuffled, ["b", "c", "a"]), shapley_values(table))
    pd.testing.assert_frame_equal(factorial_interactions(shuffled), factorial_interactions(table))
    pd.testing.assert_frame_equal(interactions(shuffled), interactions(table))
