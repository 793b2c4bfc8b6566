"""What every command store promises."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.contract.messages import Command, Feedback, Origin, Sequence
from broker.contract.states import FeedbackKind, Outcome, State
from consumer.command_store import DiskCommandStore, read_queue
from consumer.errors import StateDirectoryInUse, StoreError

NOW = datetime(2026, 1, 2, tzinfo=UTC)
Open = Callable[[], DiskCommandStore]


def command(name: str, number: int | None = None) -> Command:
    sequence = Sequence(7, number) if number else None
    return Command(name, "restart-agent", {}, Origin("n", "m"), NOW, sequence=sequence)


def result(name: str) -> Feedback:
    return Feedback(
        FeedbackKind.RESULT,
        "web-01",
        "g",
        "i",
        "completed",
        "Done.",
        command_id=name,
        outcome=Outcome.SUCCESS,
        digest="d",
    )


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Open]:
    opened: list[DiskCommandStore] = []

    def open_again() -> DiskCommandStore:
        if opened:
            opened.pop().close()
        opened.append(DiskCommandStore.open(tmp_path / "state", now=lambda: NOW))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


def test_commands_come_in_order_of_arrival_and_survive_a_reopening(reopen: Open) -> None:
    store = reopen()
    for number, name in enumerate("bca", 1):
        store.store_command(command(name, number), NOW)
    store = reopen()
    assert [stored.command.id for stored in store.get_next_commands(9)] == ["b", "c", "a"]
    assert store.last_sequence == Sequence(7, 3)


def test_the_whole_life_of_a_command(reopen: Open) -> None:
    store = reopen()
    store.mark_processing(store.store_command(command("a"), NOW), NOW, "me")
    store = reopen()
    (processing,) = store.in_processing()
    assert (processing.begun_by, processing.started_at, processing.state) == ("me", NOW, State.PROCESSING)
    store.mark_completed(processing, result("a"))
    store = reopen()
    assert (store.pending_count(), store.done_count()) == (0, 1)
    store.delete_completed_commands(["a"], NOW + timedelta(days=1))
    store = reopen()
    assert store.all_commands() == []
    tombstone = store.find_tombstone("a")
    assert tombstone is not None
    assert tombstone.result == result("a")
    assert (store.drop_expired(NOW), store.drop_expired(NOW + timedelta(days=2))) == (0, 1)
    assert store.find_tombstone("a") is None


def test_a_result_is_never_replaced_and_a_command_without_one_never_deleted(reopen: Open) -> None:
    store = reopen()
    stored = store.store_command(command("a"), NOW)
    with pytest.raises(StoreError, match="no result"):
        store.delete_completed_commands(["a"], NOW)
    store.mark_completed(stored, result("a"))
    with pytest.raises(StoreError, match="already"):
        store.mark_completed(stored, result("a"))


def test_a_transaction_that_raises_leaves_nothing(reopen: Open) -> None:
    store = reopen()
    store.store_command(command("a", 1), NOW)

    def store_and_fail() -> None:
        with store.transaction():
            store.store_command(command("b", 2), NOW)
            assert store.find("b") is not None
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own
        store_and_fail()
    for seen in (store, reopen()):
        assert [stored.command.id for stored in seen.all_commands()] == ["a"]
        assert seen.last_sequence == Sequence(7, 1)


def test_cancels_and_ids_are_remembered(reopen: Open) -> None:
    store = reopen()
    store.remember_cancel("x", NOW + timedelta(days=1))
    store.store_command(command("mqtt-5-abc-1"), NOW)
    store = reopen()
    assert store.is_cancelled("x")
    assert (store.find_id("mqtt-5-abc-"), store.find_id("mqtt-6-")) == ("mqtt-5-abc-1", None)


@pytest.mark.parametrize("spoil", ["truncate", "overwrite", "remove"])
def test_a_damaged_store_is_set_aside_under_a_new_generation(tmp_path: Path, spoil: str) -> None:
    state = tmp_path / "state"
    store = DiskCommandStore.open(state, now=lambda: NOW)
    store.store_command(command("a"), NOW)
    generation = store.store_generation
    store.close()
    database = state / "commands" / "cache.db"
    for extra in ("-wal", "-shm"):
        database.with_name("cache.db" + extra).unlink(missing_ok=True)
    if spoil == "remove":
        database.unlink()
    else:
        database.write_bytes(b"" if spoil == "truncate" else b"\0" * 50_000)
    again = DiskCommandStore.open(state, now=lambda: NOW)
    try:
        assert again.damage is not None
        assert again.store_generation != generation
        assert again.all_commands() == []
        assert len(list(state.glob("commands.damaged-*"))) == 1
    finally:
        again.close()


def test_a_second_agent_is_refused(reopen: Open, tmp_path: Path) -> None:
    reopen()
    with pytest.raises(StateDirectoryInUse, match="in use by process"):
        DiskCommandStore.open(tmp_path / "state", now=lambda: NOW)


def test_the_queue_is_read_while_the_agent_holds_it(reopen: Open, tmp_path: Path) -> None:
    reopen().store_command(command("a"), NOW)
    assert [(stored.command.id, stored.state) for stored in read_queue(tmp_path / "state")] == [("a", State.PENDING)]


def test_a_pickled_row_is_refused_unread(reopen: Open, tmp_path: Path) -> None:
    import sqlite3

    key = reopen().store_command(command("a"), NOW).key
    with sqlite3.connect(tmp_path / "state" / "commands" / "cache.db") as connection:
        connection.execute("UPDATE Cache SET mode = 4 WHERE key = ?", (key,))
    connection.close()
    with pytest.raises(StoreError, match="not of its making"):
        reopen()


WRITER = """
import os, signal, sys
from pathlib import Path
from tests.conformance.test_command_store import NOW, command
from consumer.command_store import DiskCommandStore
store = DiskCommandStore.open(Path(sys.argv[1]), now=lambda: NOW)
for number in range(1, 30):
    store.store_command(command(str(number), number), NOW)
    print(number, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_committed_survives_kill_9(reopen: Open, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path / "state")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -9, done.stderr
    assert [stored.command.id for stored in reopen().all_commands()] == done.stdout.split()
