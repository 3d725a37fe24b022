"""The benchmark of rules on streams whose effects are known, and that its judge is the command's."""

import numpy as np
import pytest

from benchmarks import judged
from benchmarks.streams import PIPELINE, PRUNE_SEEDS, PRUNED, RULES, Streams, error_control, pruning, screening
from harness.stats.online import judge_improvements


@pytest.mark.parametrize("name", RULES)
def test_a_rule_spends_its_budget_and_its_value_is_what_it_kept(name):
    streams = Streams.begin(10, 1.0, [1])
    RULES[name](streams, 200)
    if name != PRUNED:  # whose tests take what they take
        assert (streams.runs <= 200 * (1.3 if name == PIPELINE else 1)).all()
    assert (streams.runs > 100).all()
    assert streams.value == pytest.approx([sum(it) for it in streams.kept])
    assert 0 <= streams.false < 1


def test_screening_supports_what_helps():
    effects = np.array([2.0, 0.0, -2.0, 0.0, 1.5, *np.zeros(10)])
    supported, runs = screening(effects, 300, np.random.default_rng(0))
    assert set(np.flatnonzero(supported)) == {0, 4}
    assert runs == 288  # 32 variants, nine seeds
    assert screening(effects, 10, np.random.default_rng(0))[1] == 0  # no room: all remain


def test_pruning_drops_what_does_nothing_and_stops_at_what_helps():
    effects = np.array([4.0, 0.0, 0.0, -4.0, 4.0])
    left, runs = pruning(effects, np.array([4.0, 0.1, 0.0, -4.0, 3.9]), 1.0, np.random.default_rng(0))
    assert left.tolist() == [0]  # one that helps goes, too: with the one that hurts gone what is left is no worse
    assert runs == PRUNE_SEEDS * 6
    assert pruning(effects[:2], effects[:2], 1.0, np.random.default_rng(0))[0].tolist() == [0]
    assert pruning(np.zeros(0), np.zeros(0), 1.0, np.random.default_rng(0)) == (pytest.approx([]), 0)


def test_a_judge_who_looks_after_each_seed_says_what_one_says_who_sees_all():
    generator = np.random.default_rng(3)
    for _ in range(200):
        improvements = generator.normal(generator.choice([-1, 0, 0.5, 2]), 1, size=20)
        level, smallest = float(generator.choice([0.05, 0.001])), float(generator.choice([0.0, 0.5]))
        options = {"most": 18, "smallest": smallest}
        looked = (judge_improvements(improvements[:n], level, **options) for n in range(1, 21))
        assert next(it for it in looked if it.is_final) == judge_improvements(improvements, level, **options)


def test_a_stream_of_useless_proposals_rarely_keeps_one():
    lines = {line.name: line for line in error_control(60, lambda name, sample: None, length=40)}
    for name, line in lines.items():
        if not name.endswith("kept"):
            assert line.middle <= line.aim.bound, name
    assert lines["error, effects of 1, declared 0.2: kept"].middle > 0.3


@pytest.mark.ordeal
@pytest.mark.slow
def test_the_command_is_measured_as_the_functions_are_simulated(monkeypatch, tmp_path):
    monkeypatch.setattr(judged, "LENGTH", 4)
    lines = judged.judged_streams(4, tmp_path, lambda name, sample: None)
    assert [line.unit for line in lines] == ["share", "a stream", "proposals", "trained", "s", "s"]
    assert all(line.aim is None or line.aim.is_met(line.middle) for line in lines)
    monkeypatch.setattr(judged, "_score", lambda seed, value, proposal: 1.0)  # other numbers than those of training
    differing = judged.judged_streams(4, tmp_path / "again", lambda name, sample: None)[2]
    assert not differing.aim.is_met(differing.middle)
