"""The reliability trial in short: `python -m benchmarks --only chaos` is the whole."""

import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the installed package

from benchmarks.chaos.damage import FILES, WAYS, kinds  # noqa: E402
from benchmarks.chaos.kills import PHASES_OF, Chain, chains, kill_again_and_again  # noqa: E402
from benchmarks.chaos.trial import References  # noqa: E402


@pytest.mark.ordeal
def test_workers_of_a_search_that_are_killed_in_every_phase_leave_no_trace(tmp_path):
    tried = kill_again_and_again(Chain("search", "worker", 0), tmp_path, References(tmp_path))

    assert [it.said for it in tried if not it.is_right] == []
    assert len(tried) >= 4  # on a busy machine a search may end before its last kill


def test_the_whole_trial_is_of_the_size_that_was_asked_for():
    planned = Counter()
    for chain in chains(200):
        planned.update(PHASES_OF[chain.victim])
    assert min(planned.values()) >= 15
    assert sum(planned.values()) >= 200
    assert len(set(kinds())) == len(FILES) * len(WAYS) == 60


@pytest.mark.ordeal
def test_a_study_on_a_cluster_in_a_storm_ends_like_an_uninterrupted_one(tmp_path):
    """The command is killed first, so that it is there when nodes are lost: `storms` of the benchmarks in short."""
    pytest.importorskip("ray")
    from benchmarks.chaos.storms import STUDIES, Untroubled, storm

    stormed = storm(STUDIES["own"], 8, 12, tmp_path, Untroubled(tmp_path, 12))

    assert stormed.order.split()[0] == "driver"
    assert stormed.said == ""
    assert stormed.lost is not None
    assert stormed.resumed >= 1
