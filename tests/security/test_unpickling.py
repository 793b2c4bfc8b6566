"""diskcache unpickles what it reads (CVE-2025-69872); our command store never does, whatever its file contains."""

import contextlib
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diskcache import Cache

from consumer.errors import StoreError
from consumer.store.opening import open_store
from consumer.store.reader import read_queue
from tests.support.makers import NOW, command, stored_result
from tests.support.stored import all_commands, tidy

PICKLE, BINARY = 4, 2
VALUES = ["c/%", "r/%", "t/%", "x/%", "m/head", "m/store_generation", "m/sentinel", "m/check"]


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "unpickled"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state directory of a store with a row of each kind."""
    store = open_store(tmp_path / "state", now=lambda: NOW)
    for name in ("a", "b", "c"):
        store.store_command(command(name), NOW)
    for done in store.get_next_commands(2):
        store.mark_completed(done, stored_result(done.command.id))
    store.delete_completed_commands(["a"], NOW)
    store.remember_cancel("d", NOW)
    store.check()
    store.close()
    return tmp_path / "state"


def spoil(state: Path, change: str, *values: Any) -> None:
    connection = sqlite3.connect(state / "commands" / "cache.db")
    with connection:
        assert connection.execute(change, values).rowcount > 0
    connection.close()


def use_all_of(state: Path) -> None:
    """Use the whole store: read and delete every row, through the store and through the readers of its file."""
    for read in (lambda: read_queue(state), lambda: live(state)):
        with contextlib.suppress(StoreError):
            read()


def live(state: Path) -> None:
    store = open_store(state, now=lambda: NOW)
    try:
        store.check()
        for read in (lambda: all_commands(store), store.with_results, lambda: store.find_tombstone("a")):
            read()
        store.delete_completed_commands([stored.command.id for stored in store.with_results()], NOW)
        tidy(store, NOW)
    finally:
        store.close()


def test_payload_works_against_diskcache_itself(state: Path, mark: Path) -> None:
    spoil(state, "UPDATE Cache SET mode = ?, value = ? WHERE key = 'm/head'", PICKLE, pickle.dumps(Bomb(mark)))
    with Cache(str(state / "commands")) as cache:
        cache.get("m/head")
    assert mark.exists()


def test_intact_store_is_usable(state: Path) -> None:
    live(state)
    assert [stored.command.id for stored in read_queue(state)] == ["c"]


@pytest.mark.parametrize("key", VALUES)
def test_pickled_value_is_never_unpickled(state: Path, mark: Path, key: str) -> None:
    spoil(state, "UPDATE Cache SET mode = ?, value = ? WHERE key LIKE ?", PICKLE, pickle.dumps(Bomb(mark)), key)
    use_all_of(state)
    assert not mark.exists()


@pytest.mark.parametrize("mode", [PICKLE, BINARY])
@pytest.mark.parametrize("key", VALUES)
def test_file_named_by_a_row_is_neither_read_nor_removed(state: Path, mark: Path, key: str, mode: int) -> None:
    payload = state / "commands" / "payload.val"
    payload.write_bytes(pickle.dumps(Bomb(mark)))
    change = "UPDATE Cache SET mode = ?, value = NULL, filename = ? WHERE key LIKE ?"
    spoil(state, change, mode, payload.name, key)
    use_all_of(state)
    assert not mark.exists()
    assert len(list(state.rglob(payload.name))) == 1


@pytest.mark.parametrize("raw", [0, 1])
@pytest.mark.parametrize("key", VALUES)
def test_pickled_key_is_never_unpickled(state: Path, mark: Path, key: str, raw: int) -> None:
    change = "UPDATE Cache SET key = ?, raw = ? WHERE rowid = (SELECT max(rowid) FROM Cache WHERE key LIKE ?)"
    spoil(state, change, pickle.dumps(Bomb(mark)), raw, key)
    use_all_of(state)
    assert not mark.exists()


def test_outside_file_named_by_a_row_is_not_removed(state: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    spoil(state, "UPDATE Cache SET filename = '../../victim' WHERE key LIKE 'r/%' OR key = 'm/check'")
    use_all_of(state)
    assert victim.exists()
