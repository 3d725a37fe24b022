"""The generated sentences: everything they must say, and what they must never say."""

import math

import numpy as np
import pandas as pd
import pytest
from stats_tables import make_table, noisy

from harness.api.confirmation import pick_winner
from harness.errors import ResultsError
from harness.stats import (
    Decision,
    aa_noise_floor,
    biggest_improvement,
    compare_published,
    confirmation_line,
    decide,
    describe_seeds,
    effects,
    format_p,
    interactions,
    noise_floor_line,
    paired_effect,
    published_line,
    refusal,
    report_line,
)
from harness.trainers.images.trainer import METRICS

BASELINE = noisy(0.74, 10, 0)


def study(n: int = 10, **means: float) -> pd.DataFrame:
    cells: dict[str, list[float | str]] = {"baseline": list(BASELINE[:n])}
    for index, (name, by) in enumerate(means.items()):
        noise = np.random.default_rng(index + 1).normal(by, 0.002, 10)
        cells[name] = [round(x + float(d), 4) for x, d in zip(BASELINE[:n], noise, strict=False)]
    return make_table(cells)


# --- how numbers are written


def test_p_values_without_a_number_say_so() -> None:
    assert [format_p(p) for p in (math.nan, 0.00009, 0.0019531, 1.0)] == ["n/a", "<0.0001", "0.00195", "1"]


@pytest.mark.parametrize(
    ("seeds", "text"),
    [([3, 1, 2, 0], "0-3"), ([7, 0, 1], "0, 1, 7"), ([5], "5"), ([1, 2, 3, 9, 10, 11], "1-3, 9-11"), ([], "")],
)
def test_seeds_are_shortened(seeds: list[int], text: str) -> None:
    assert describe_seeds(seeds) == text


# --- refusals


def test_too_few_seeds_are_refused_by_what_the_test_could_give() -> None:
    # STATS.md: smallest p .0625 with 5 seeds.
    assert refusal(5) == (
        "It cannot reach significance with 5 seeds: the smallest possible p is 0.0625 and 0.05 is needed, which takes"
        " at least 6 seeds."
    )
    assert refusal(1).startswith("It cannot reach significance with 1 seed: the smallest possible p is 1")
    assert refusal(6) == ""


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_what_could_not_be_significant_is_never_called_not_significant(n: int) -> None:
    table = study(n, **{f"v{k}": 0.02 * k - 0.05 for k in range(9)})
    family = effects(table)
    texts = [biggest_improvement(family).sentence, *(report_line(family, name, table) for name in family["variant"])]
    for text in texts:
        assert "not significant" not in text
        assert "cannot reach significance" in text or "One seed" in text or "one seed" in text
    assert not biggest_improvement(family).is_supported


# --- the biggest single improvement


def test_a_supported_winner_is_named_with_its_evidence_and_as_a_maximum() -> None:
    headline = biggest_improvement(effects(study(kernel=-0.03, **{"batch-norm": 0.02, "dropout": 0.006})))
    row = effects(study(kernel=-0.03, **{"batch-norm": 0.02, "dropout": 0.006})).iloc[0]
    assert (headline.variant, headline.is_supported) == ("batch-norm", True)
    for part in (
        "The biggest single improvement is batch-norm",
        f"{100 * row['mean']:+.2f} points [95% {100 * row['low']:+.2f}, {100 * row['high']:+.2f}]",
        "over baseline on 10 of 10 seeds",
        "p 0.00195 raw, 0.00195 after Westfall-Young over 3 changes; P",
        "P(improve) 1.00 [0.69, 1.00]",
        "largest of 3 noisy estimates",
        "improves by 0.85 standard errors by luck alone",
        "confirm it on fresh seeds",
    ):
        assert part in headline.sentence, part
    assert "Next is" not in headline.sentence  # dropout's interval lies well below
    assert str(headline) == headline.sentence


def test_what_fresh_seeds_have_decided_is_not_to_be_confirmed() -> None:
    several, one = effects(study(a=0.02, b=0.01)), effects(study(a=0.02))
    for family in (several, one):
        assert "harness confirm" in biggest_improvement(family, confirmed=["b"]).sentence
        assert "onfirm" not in biggest_improvement(family, confirmed=["a"]).sentence
    assert "by luck alone): rely on what fresh seeds said." in biggest_improvement(several, confirmed=["a"]).sentence


def test_a_close_second_leaves_the_rank_open() -> None:
    sentence = biggest_improvement(effects(study(a=0.02, b=0.0195))).sentence
    assert "the intervals overlap, so which of the two is bigger is open" in sentence


def test_a_larger_estimate_without_support_is_mentioned() -> None:
    wild = {"baseline": BASELINE, "a": [x + 0.01 + 0.0001 * s for s, x in enumerate(BASELINE)]}
    wild["z"] = [x + (0.2 if s < 3 else -0.01) for s, x in enumerate(BASELINE)]
    headline = biggest_improvement(effects(make_table(wild)))
    assert headline.variant == "a"
    assert "z ranks before it" in headline.sentence
    assert "not supported" in headline.sentence
    assert "It is the best supported of 2 noisy estimates" in headline.sentence  # z's is the largest


def test_the_winner_is_picked_on_validation_and_reported_on_test() -> None:
    table = study(a=0.02, b=0.015)
    table.loc[table["variant"] == "b", "val/accuracy"] += 0.05
    headline = biggest_improvement(effects(table), chosen_by=effects(table, metric="val/accuracy"))
    test_estimate = METRICS["test/accuracy"].say_difference(paired_effect(table, "b").mean)
    assert headline.variant == "b"
    assert f"picked by validation accuracy, is b: {test_estimate}" in headline.sentence
    assert "It was picked as the best of 2 noisy estimates" in headline.sentence  # a's is the largest
    assert "in test accuracy" in headline.sentence


def test_the_biggest_improvement_of_a_loss_is_the_smallest_loss() -> None:
    headline = biggest_improvement(effects(study(a=0.02, b=0.01), metric="test/loss"))
    assert headline.variant == "a"
    assert "is a: -0.0" in headline.sentence


def test_an_inconclusive_best_says_what_could_have_been_seen() -> None:
    family = effects(study(a=0.0005, b=-0.01))
    row = family.set_index("variant").loc["a"]
    headline = biggest_improvement(family)
    assert (headline.variant, headline.is_supported) == ("a", False)
    assert headline.sentence.startswith(
        "The biggest single improvement cannot be named yet. The largest estimate is a:"
    )
    assert f"these seeds show an effect of {100 * row['detectable']:.2f} points with power 0.8" in headline.sentence


def test_three_seeds_are_exploratory_and_one_gives_no_inference() -> None:
    three, one = (biggest_improvement(effects(study(n, a=0.02, b=0.01))) for n in (3, 1))
    assert "The largest exploratory estimate is a" in three.sentence
    assert "cannot reach significance with 3 seeds" in three.sentence
    assert "[95%" in three.sentence
    assert "no inference" in one.sentence
    assert "[95%" not in one.sentence
    assert "3 seeds give intervals, 10 are the standard" in one.sentence


def test_where_nothing_improves_the_best_is_still_said() -> None:
    headline = biggest_improvement(effects(study(a=-0.02, b=-0.03)))
    assert headline.sentence.startswith("No improvement to name: even the best of 2 changes, a, stands at -1.96 points")
    assert "It is worse than baseline: p 0.00195 after Westfall-Young over 2 changes." in headline.sentence


def test_an_equivalent_best_is_called_equivalent() -> None:
    sentence = biggest_improvement(effects(study(a=0.001), delta=0.01)).sentence
    assert "It is equivalent to baseline within 1.00 points" in sentence


def test_what_is_exploratory_claims_nothing() -> None:
    assert "so nothing is claimed" in biggest_improvement(effects(study(a=0.02), exploratory=True)).sentence


def lacking(table: pd.DataFrame, *variants: str) -> pd.DataFrame:
    table.loc[table["variant"].isin(variants) & (table["seed"] == 4), ["status", "test/accuracy"]] = [
        "diverged",
        np.nan,
    ]
    return table


def test_missing_seeds_of_the_winner_are_named() -> None:
    sentence = biggest_improvement(effects(lacking(study(a=0.02, b=0.01), "a", "b"))).sentence
    assert "on 9 of 10 seeds" in sentence
    assert "Only the complete pairs count (a seed 4 diverged)" in sentence


def test_the_winner_has_as_many_seeds_as_any_as_the_one_that_is_confirmed() -> None:
    table = lacking(study(a=0.02, b=0.01), "a")
    headline = biggest_improvement(effects(table))
    assert headline.variant == pick_winner(table) == "a"  # its claim stands, against the lost pair as well
    table = lacking(study(n=6, a=0.02, b=0.01), "a")  # five seeds can claim nothing
    headline = biggest_improvement(effects(table))
    assert headline.variant == pick_winner(table) == "b"
    assert "a ranks before it, at +2." in headline.sentence
    assert headline.sentence.endswith("but on 5 of 6 seeds.")


def test_intervals_overlap_only_where_there_are_two() -> None:
    baseline = [0.7 + 0.001 * (it % 3) for it in range(8)]
    constant = [it + 0.05 for it in baseline]
    far, near = ([it + gain + 0.0001 * (place % 4) for place, it in enumerate(baseline)] for gain in (0.2, 0.0499))
    for better, is_open in ((far, False), (near, True)):
        table = make_table({"baseline": baseline, "c1": better, "c2": constant})
        assert ("the intervals overlap" in biggest_improvement(effects(table)).sentence) == is_open


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"baseline": [0.7]}, "hold only the reference"),
        (
            {"baseline": ["missing"], "a": [0.7]},
            "no seed has finished for both baseline and a change (baseline seed 0 not run)",
        ),
    ],
)
def test_nothing_measured_is_a_sentence_too(cells: dict[str, list[float | str]], words: str) -> None:
    headline = biggest_improvement(effects(make_table(cells)))
    assert headline.variant is None
    assert words in headline.sentence


# --- the report line


def test_the_report_line_says_everything_of_rule_12() -> None:
    table = study(kernel=-0.03, **{"batch-norm": 0.02, "dropout": 0.006})
    table.loc[table["variant"] == "batch-norm", "dirty"] = True
    family = effects(table)
    row = family.set_index("variant").loc["batch-norm"]
    line = report_line(family, "batch-norm", table)
    for part in (
        "Test accuracy as training reports it",  # metric, checkpoint rule
        "batch-norm against baseline on 10 of 10 seeds (0-9)",  # n_ok/n, the seeds
        "all random draws of training vary",
        f"paired by seed (correlation {row['correlation']:.2f}, variance ratio {row['variance_ratio']:.2f})",
        f"{100 * row['mean']:+.2f} points [95% t {100 * row['low']:+.2f}, {100 * row['high']:+.2f}]",
        f"dz {row['dz']:.2f}",
        "p 0.00195 raw, 0.00195 after Westfall-Young over 3 changes, paired t",
        "P(improve) 1.00 [0.69, 1.00], meaningful at 0.75",
        f"detectable with power 0.8: {100 * row['detectable']:.2f} points",
        "verdict: improves",
        "Device cpu, precision float32, 1 thread; versions torch 2.15.0",
        "commit abc1234 (clean) and abc1234 (dirty)",
        "data f00d",
        "20 of 20 cells finished",  # of these two variants
        "cost 0.33 hours of training",  # 20 cells of 60 s
    ):
        assert part in line, part


def test_the_report_line_shows_mixed_conditions_and_missing_cells() -> None:
    table = study(a=0.02)
    table.loc[(table["variant"] == "a") & (table["seed"] == 4), ["status", "test/accuracy"]] = ["failed", np.nan]
    table.loc[table["seed"] == 1, ["device", "threads"]] = ["NVIDIA H200", 4]
    line = report_line(
        effects(table), "a", table, varied="everything and the split", checkpoint_rule="at the last step"
    )
    assert (
        "at the last step; a against baseline on 9 of 10 seeds (0-3, 5-9), between which everything and the split"
        in line
    )
    assert "Missing: a seed 4 failed." in line
    assert "Device NVIDIA H200 and cpu, precision float32, 1 thread and 4 threads" in line
    assert "19 of 20 cells finished" in line


def test_the_report_line_of_one_seed_and_of_none_infers_nothing() -> None:
    for cells, words in ([0.72], "one seed, so there is no interval and no test"), (["failed"], "No result yet"):
        table = make_table({"baseline": [0.7], "a": cells})
        line = report_line(effects(table), "a", table)
        assert words in line
        assert "p " not in line.split("Device")[0].replace("Holm", "")


def test_the_report_line_of_an_interaction_takes_its_provenance_from_all_cells() -> None:
    table = make_table({"baseline": [0.7, 0.7], "a": [0.71, 0.7], "b": [0.7, 0.72], "a+b": [0.7, 0.73]})
    assert "8 of 8 cells finished" in report_line(interactions(table), "a x b", table)


def test_a_cell_that_two_studies_share_costs_once() -> None:
    table = study(a=0.01)
    twice = pd.concat([table, table.assign(study="other")])
    assert report_line(effects(twice), "a", twice) == report_line(effects(table), "a", table)


def test_a_report_line_of_something_else_is_refused() -> None:
    with pytest.raises(ResultsError, match="'b' is not in this family of effects: a"):
        report_line(effects(study(a=0.01)), "b", study(a=0.01))


# --- A/A, published numbers, confirmation


def test_the_noise_floor_in_words() -> None:
    floor = aa_noise_floor(make_table({"baseline": noisy(0.74, 20, 0)}))
    line = noise_floor_line(floor)
    assert f"A/A of baseline on 20 seeds: sd {100 * floor.sd:.2f} points in test accuracy between seeds [95% " in line
    assert (
        f"{floor.rate_t:.3f} by t [95% {floor.rate_low:.3f}, {floor.rate_high:.3f}, as the splits share seeds]" in line
    )


def test_a_published_number_in_words() -> None:
    table = make_table({"baseline": BASELINE})
    inside, outside = (published_line(compare_published(table, "baseline", x)) for x in (0.7422, 0.79))
    assert "published 74.22% (no spread published)" in inside
    assert "prediction t p " in inside
    assert inside.endswith("the published value lies inside.")
    assert outside.endswith("the published value lies outside.")
    raw = published_line(compare_published(table, "baseline", [0.74, 0.75]))
    assert "(mean of 2 runs)" in raw
    assert "Welch t p " in raw
    one = published_line(compare_published(make_table({"baseline": [0.7]}), "baseline", 0.74))
    assert "on 1 seed, published 74.00%" in one
    assert "no interval" in one
    assert "no finished seed" in published_line(
        compare_published(make_table({"baseline": ["failed"]}), "baseline", 0.74)
    )


def halves(by: float, fresh: float, n: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ten seeds of a search, and n fresh ones with their own effect."""
    found = study(a=by)
    again = study(n, a=fresh)
    again["seed"] += 100
    return found, again


@pytest.mark.parametrize(
    ("fresh", "n", "words"),
    [
        (0.02, 10, "Confirmed."),
        (-0.02, 10, "Refuted"),
        (0.0, 10, "Not confirmed."),
        (0.02, 3, "Not decided. It cannot reach significance with 3 seeds"),
    ],
)
def test_a_confirmation_stands_beside_the_estimate_that_led_to_it(fresh: float, n: int, words: str) -> None:
    found, again = halves(0.03, fresh, n)
    confirmed, searched = paired_effect(again, "a"), paired_effect(found, "a", metric="val/accuracy")
    line = confirmation_line(confirmed, searched, decide(confirmed, 0.05))
    assert line.startswith(words)
    assert f"a against baseline on {n} fresh seeds: {100 * confirmed.mean:+.2f} points" in line
    assert f"The estimate that led to it: {100 * searched.mean:+.2f} points" in line
    assert "in validation accuracy on 10 seeds" in line


def test_used_seeds_confirm_nothing() -> None:
    found, again = halves(0.03, 0.03)
    again["seed"] -= 98
    with pytest.raises(ResultsError, match=r"seeds 2, 3, 4, 5, 6, 7 and 2 more were used to find a"):
        confirmation_line(paired_effect(again, "a"), paired_effect(found, "a"), Decision("confirmed", 0.05))
    with pytest.raises(ResultsError, match="cannot confirm baseline against a"):
        confirmation_line(
            paired_effect(again, "a"), paired_effect(found, "baseline", reference="a"), Decision("confirmed", 0.05)
        )
