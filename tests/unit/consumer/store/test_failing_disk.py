"""What the agent's small files and rows do when the disk fails."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.errors import StoreError, StoreFull
from consumer.store.cache import DurableRows
from consumer.store.groups import Groups
from consumer.store.opening import open_store
from consumer.store.state_directory import Epochs, refuse_exposed
from tests.support.errors import raises_code
from tests.support.makers import NOW
from tests.support.strace import Fault, count_calls, with_fault

ROOT = Path(__file__).resolve().parents[4]


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


def test_rows_are_never_stored_elsewhere(tmp_path: Path) -> None:
    rows = DurableRows(tmp_path / "a b?c#d%41")
    rows.close()
    assert (tmp_path / "a b?c#d%41" / "cache.db").exists()
    with raises_code(StoreError, "state_directory_unusable"):
        DurableRows(tmp_path / "$HOME")


def test_only_bytes_are_stored(rows: DurableRows) -> None:
    with raises_code(StoreError, "store_error"):
        rows["a"] = "text"  # type: ignore[assignment]
    assert rows.keys() == []


def test_transaction_without_room_stores_nothing(rows: DurableRows) -> None:
    limit_pages(rows)
    with raises_code(StoreFull, "store_full"), rows.transaction():
        rows["a"] = b"1" * (1 << 20)
    assert rows.keys() == []
    with rows.transaction():
        rows["b"] = b"1"
    assert rows.keys() == ["b"]


def limit_pages(rows: DurableRows) -> None:
    """Let SQLite itself refuse more pages, as it does on a full disk."""
    rows._cache.reset("sqlite_max_page_count", 20, update=False)


def test_store_that_cannot_be_looked_up_is_not_taken_for_a_replaced_one(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from consumer.errors import StoreError
from consumer.store.cache import DurableRows
try:
    rows = DurableRows(Path(sys.argv[1]))
    with rows.transaction():
        rows["a"] = b"1"
except StoreError as error:
    print(error.code, error)
"""
    argv = [sys.executable, "-c", script, str(tmp_path / "rows")]
    database = tmp_path / "rows" / "cache.db"
    said = []
    for number in range(1, count_calls(["newfstatat"], [database], argv)["newfstatat"] + 1):
        shutil.rmtree(database.parent)
        fault = with_fault(Fault("newfstatat", "EIO", number, [database]), argv)
        said.append(subprocess.run(fault, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert f"store_failed The command store cannot be used: {database}: Input/output error.\n" in said
    assert not [line for line in said if line.startswith("store_replaced")]


def test_failure_of_the_block_stores_nothing(rows: DurableRows) -> None:
    with raises_code(StoreError, "store_failed"), rows.transaction():
        rows["a"] = b"1"
        raise sqlite3.OperationalError("disk I/O error")
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
    with raises_code(StoreError, "state_directory_unusable"):
        epochs.keep(1)
    assert epochs.latest == 0


def test_state_directory_that_cannot_be_checked_is_an_error(tmp_path: Path) -> None:
    with raises_code(StoreError, "state_directory_unusable"):
        refuse_exposed(tmp_path / ("long" * 100))


def test_file_of_the_state_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "epoch").mkdir()
    with raises_code(StoreError, "state_directory_unusable") as caught:
        open_store(tmp_path, now=lambda: NOW).close()
    assert f"{tmp_path / 'epoch'}: Is a directory" in str(caught.value)
