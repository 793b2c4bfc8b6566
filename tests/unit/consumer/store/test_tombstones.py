"""Ids of deleted commands: added, found, dropped, and as before after a transaction that failed."""

from datetime import timedelta
from pathlib import Path

import pytest

from broker.contract.states import ErrorCode, Outcome
from consumer.ports import Tombstone
from consumer.store import tombstones as module
from consumer.store.cache import DurableRows
from consumer.store.tombstones import TOMBSTONES, Gone, Tombstones
from tests.support.makers import NOW

LATER = NOW + timedelta(days=365)


@pytest.fixture
def rows(tmp_path: Path) -> DurableRows:
    return DurableRows(tmp_path / "rows")


def gone(first: int, count: int) -> list[Gone]:
    return [Gone(f"command-{number}", f"digest-{number}") for number in range(first, first + count)]


def test_tombstones_share_rows_and_are_found_after_reopening(rows: DurableRows) -> None:
    kept = Tombstones(rows)
    for number in range(40):
        kept.add(gone(number, 1), LATER)
    kept.add([Gone("failed", "d", ErrorCode.FAILED)], LATER)
    assert len(rows.keys(TOMBSTONES)) == 2
    for seen in (kept, Tombstones(rows)):
        assert (len(seen), seen.damage) == (41, None)
        assert seen.find("command-39") == Tombstone("command-39", "digest-39", Outcome.SUCCESS)
        assert seen.find("failed") == Tombstone("failed", "d", Outcome.ERROR, ErrorCode.FAILED)
        assert seen.find("command-40") is None


def test_expired_rows_are_dropped_one_by_one(rows: DurableRows) -> None:
    kept = Tombstones(rows)
    kept.add(gone(0, 70), NOW)
    kept.add(gone(70, 1), LATER)  # in the last row, which then expires later
    assert [kept.drop(NOW) for _ in range(3)] == [32, 32, 0]
    assert (sorted(kept), len(rows.keys(TOMBSTONES))) == ([f"command-{number}" for number in range(64, 71)], 1)


def test_oldest_rows_are_dropped_when_there_are_too_many(rows: DurableRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOMBSTONES", 50)
    kept = Tombstones(rows)
    kept.add(gone(0, 100), LATER)
    assert [kept.drop(NOW) for _ in range(3)] == [32, 32, 0]
    assert (kept.find("command-0"), kept.find("command-99") is None) == (None, False)


def test_failed_transaction_leaves_memory_as_the_disk(rows: DurableRows) -> None:
    kept = Tombstones(rows)
    kept.add(gone(0, 70), NOW)
    kept.committed()

    def change_and_fail() -> None:
        with rows.transaction():
            kept.add(gone(70, 60), LATER)
            kept.drop(NOW)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own
        change_and_fail()
    kept.roll_back()
    assert sorted(kept) == sorted(Tombstones(rows)) == sorted(f"command-{number}" for number in range(70))
    kept.add(gone(70, 1), LATER)
    assert len(Tombstones(rows)) == 71
    assert kept.drop(NOW) == 32
