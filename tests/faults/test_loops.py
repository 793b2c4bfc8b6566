"""A few rounds of the loops that no other test has a short form of. power-loss needs root."""

import sys

import pytest

from tests.faults.loops import LOOPS
from tests.faults.tally import Budget


@pytest.mark.parametrize(
    ("name", "rounds"),
    [
        ("power-loss", 2),
        ("clock", 1),
        ("kill-broker", 1),
        ("old-broker", 2),
        ("withheld", 4),
        ("database", 4),
        ("pooler", 2),
    ],
)
def test_loop_of_faults_finds_no_violation(name: str, rounds: int) -> None:
    tally = LOOPS[name](Budget.of(sys.maxsize, rounds, name))
    assert tally.violations == []
    assert tally.counts.total() >= rounds
    assert tally.counts["unsynced files kept"] == 0
