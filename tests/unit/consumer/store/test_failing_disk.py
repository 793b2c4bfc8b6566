"""What the agent's small files and rows do when the disk fails."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.errors import StoreError, StoreFull
from consumer.store.cache import DurableRows
from consumer.store.groups import Groups
from consumer.store.state_directory import Epochs, refuse_exposed
from tests.support.errors import raises_code


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[DurableRows]:
    rows = DurableRows(tmp_path / "rows")
    yield rows
    rows.close()


def test_row_is_never_overwritten_by_a_new_one(rows: DurableRows) -> None:
    rows.add("a", b"1")
    with raises_code(StoreError, "key_taken"):
        rows.add("a", b"2")
    assert rows["a"] == b"1"


def test_only_bytes_are_stored(rows: DurableRows) -> None:
    with raises_code(StoreError, "store_error"):
        rows["a"] = "text"  # type: ignore[assignment]
    assert rows.keys() == []


@pytest.mark.parametrize(
    ("reason", "kind", "code"),
    [("database or disk is full", StoreFull, "store_full"), ("disk I/O error", StoreError, "store_failed")],
)
def test_failed_transaction_stores_nothing_and_says_why(
    rows: DurableRows, reason: str, kind: type[StoreError], code: str
) -> None:
    with raises_code(kind, code), rows.transaction():
        rows["a"] = b"1"
        raise sqlite3.OperationalError(reason)
    assert "a" not in rows


def test_groups_that_cannot_be_stored_are_an_error(tmp_path: Path) -> None:
    groups = Groups(tmp_path / "missing")
    with raises_code(StoreError, "file_unwritable"):
        groups.set(("web",))
    assert groups.current is None


def test_groups_are_unknown_if_their_file_cannot_be_looked_up(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_bytes(b"")
    assert Groups(state).current is None


def test_epoch_that_cannot_be_stored_is_an_error(tmp_path: Path) -> None:
    epochs = Epochs(tmp_path / "missing", None)
    with raises_code(StoreError, "file_unwritable"):
        epochs.keep(1)
    assert epochs.latest == 0


def test_state_directory_that_cannot_be_checked_is_an_error(tmp_path: Path) -> None:
    with raises_code(StoreError, "state_directory_unusable"):
        refuse_exposed(tmp_path / ("long" * 100))
