"""The agent's turn, where the disk has no room or the clock is wrong."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from broker.contract.codec import encode
from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys
from broker.contract.messages import Ack, JsonObject
from broker.contract.topics import Channel
from consumer.errors import StoreFull
from consumer.ports import EncodedFeedback, StoredCommand
from consumer.store.damage import DISK_FULL
from consumer.store.opening import open_store
from tests.simulation.world import World
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.makers import NOW
from tests.support.unprivileged import as_nobody, directory_of_nobody


class FullStore(MemoryCommandStore):
    def tidy(self, now: datetime) -> bool:
        raise StoreFull("The disk is full.")


def test_housekeeping_on_a_full_disk_does_not_stop_the_agent() -> None:
    world = World(FullStore(), lambda store: store)
    world.send("again")
    world.settle()
    (row,) = world.ledger.commands()
    assert row.result is not None
    assert row.result["outcome"] == "success"
    world.ledger.database.close()


def test_agent_with_a_slow_clock_expires_commands_and_reports_its_clock() -> None:
    world = World(MemoryCommandStore(), lambda store: store, agent_behind=timedelta(days=1))
    world.send("once")
    world.settle()  # the agent has the server's time from then on
    world.send("once", expires_in_s=60)
    world.step_server()
    world.clock.turn(61)
    world.settle()
    assert (codes(world), len(world.effects)) == ([None, "expired"], 1)
    assert [row.result["incarnation"] for row in world.ledger.commands() if row.result] == ["i1", "i1"]
    (agent,) = world.ledger.agents()
    assert agent.status is not None
    assert agent.status.clock_behind_s == 86400
    world.ledger.database.close()


def test_agent_with_a_slow_clock_runs_unexpired_commands() -> None:
    world = World(MemoryCommandStore(), lambda store: store, agent_behind=timedelta(days=1))
    world.send("once", expires_in_s=60)
    world.settle()
    assert len(world.effects) == 1
    world.ledger.database.close()


def test_what_could_not_be_removed_is_in_the_status_until_it_is_gone() -> None:
    world = World(MemoryCommandStore(), lambda store: store)
    with directory_of_nobody() as directory:
        (directory / "kept" / "file").mkdir(parents=True)
        with as_nobody():
            world.core._leftovers.remove(directory / "kept")
        world.settle()
        assert f"{directory}/kept/file: Permission denied" in str(world.core._status.current(None).last_error)
    world.settle()
    assert world.core._status.current(None).last_error is None
    world.ledger.database.close()


def codes(world: World) -> list[object]:
    """The code of each command's result, in order; None where it succeeded."""
    rows = {row.command.id: row for row in world.ledger.commands()}
    return [(rows[sent.id].result or {}).get("code") for sent in world.sent]


def test_agent_with_a_slow_clock_expires_commands_after_a_reboot() -> None:
    world = World(MemoryCommandStore(), lambda store: store, agent_behind=timedelta(days=1))
    for _ in range(2):
        world.send("once", expires_in_s=60)
    world.step_server()
    world.step_agent()
    world.run_handlers()
    world.clock.turn(3600)
    world.kill_agent()
    for _ in range(2):
        world.step_agent()
        world.run_handlers()
    world.settle()
    assert (codes(world), len(world.effects)) == (["interrupted", "expired"], 1)
    world.ledger.database.close()


def test_time_sample_is_saved_while_commands_are_pending() -> None:
    """A machine without a clock of its own starts again at the saved time."""
    world = World(MemoryCommandStore(), lambda store: store)
    for _ in range(2):
        world.send("once", expires_in_s=7200)
    world.step_server()
    world.step_agent()
    world.clock.turn(3600)
    world.step_agent()
    assert world.store.time_sample is not None
    assert world.store.time_sample.server == world.clock.now()
    world.ledger.database.close()


def test_wrong_server_clock_costs_one_command_and_no_restart() -> None:
    world = World(MemoryCommandStore(), lambda store: store)
    world.server_is_ahead = timedelta(days=30_000)
    world.send("again", expires_in_s=3600)
    world.settle()
    world.server_is_ahead = timedelta()
    for _ in range(2):
        world.send("again", expires_in_s=3600)
        world.settle()
    world.kill_agent()
    world.send("again", expires_in_s=3600)
    world.settle()
    assert codes(world) == ["expired", "expired", None, None]
    world.ledger.database.close()


def test_agent_with_a_slow_clock_ignores_keys_of_an_expired_command() -> None:
    world = World(MemoryCommandStore(), lambda store: store, agent_behind=timedelta(days=1))
    said: JsonObject = msgspec.to_builtins(UpdateSigningKeys(6, (world._trust.keys[0].pem,)))
    world.send(UPDATE_SIGNING_KEYS, expires_in_s=60, parameters=said)
    world.clock.turn(61)
    world.settle()
    assert world._trust.updates == []
    world.ledger.database.close()


@pytest.mark.parametrize("begun", [True, False])
def test_command_with_revoked_signer_is_rejected_and_the_audit_agrees(begun: bool) -> None:
    """Also one that was marked as processing: it has not begun before its handler does."""
    world = World(MemoryCommandStore(), lambda store: store)
    for _ in range(2):
        world.send("once")
    world.step_server()
    world.step_agent()
    if begun:
        world.run_handlers()
    world.change_keys()
    world.settle()
    assert (codes(world), len(world.effects)) == ([None if begun else "rejected", "rejected"], int(begun))
    world._check_journal()
    world.ledger.database.close()


def test_lock_on_the_store_is_in_the_status_until_it_ends(tmp_path: Path) -> None:
    store = open_store(tmp_path, now=lambda: NOW, stopping=lambda: True)  # so it does not wait for the lock
    world = World(store, lambda store: store)
    world.settle()
    with closing(sqlite3.connect(tmp_path / "commands" / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        world.send("again")
        world.step_server()
        world.step_agent()
        assert "locked by another process" in (world.core._status.current(None).last_error or "")
    world.settle()
    assert (codes(world), world.core._status.current(None).last_error) == ([None], None)
    world.ledger.database.close()
    store.close()


def test_full_disk_is_in_the_status_until_there_is_room() -> None:
    store = MemoryCommandStore()
    world = World(store, lambda store: store)
    world.settle()
    store.full = True
    world.send("again")
    world.step_server()
    world.step_agent()
    assert world.core._status.current(None).last_error == DISK_FULL
    world.step_agent()
    assert world.core._status.current(None).last_error == DISK_FULL
    store.full = False
    world.settle()
    assert (codes(world), world.core._status.current(None).last_error) == ([None], None)
    world.ledger.database.close()


def test_commands_without_room_keep_nothing_else_out_and_come_again_at_once() -> None:
    """They are acknowledged and dropped: unacknowledged, a thousand of them would be all that the broker delivers."""
    store = MemoryCommandStore()
    world = World(store, lambda store: store)
    world.send("again")
    world.send("again")
    world.step_server()
    world.step_agent()
    store.full = True
    for _ in range(3):
        world.send("once")
    for _ in range(4):
        world.step_agent()
        world.run_handlers()
        world.step_server()
        world.clock.turn(0.1)
    world.cancel(3)
    world.step_server()
    world.step_agent()
    assert world._connection._session.unacknowledged == {}
    assert (codes(world), store.done_count(), store.is_cancelled(world.sent[3].id)) == (
        [None] * 2 + [None] * 3,
        0,
        True,
    )
    store.full = False
    for _ in range(8):
        world.step_agent()
        world.run_handlers()
        world.step_server()
        world.clock.turn(0.1)  # less than a second in all, so nothing is sent again by its timeout
    assert codes(world) == [None, None, None, "cancelled", None]
    assert len(world.effects) == 4
    world.ledger.database.close()


def test_messages_of_an_earlier_connection_are_not_kept() -> None:
    class NoRoomAtAll(MemoryCommandStore):
        fails = False

        @contextmanager
        def transaction(self) -> Iterator[None]:
            if self.fails:
                raise StoreFull(DISK_FULL)
            with super().transaction():
                yield

    store = NoRoomAtAll()
    world = World(store, lambda store: store)
    store.fails = True
    for _ in range(5):
        world.send("again")
        world.step_server()
        world.step_agent()
        world.lose_connection_of_agent()
    world.step_agent()
    assert len(world.core._inbox) == 5
    store.fails = False
    world.settle()
    assert codes(world) == [None] * 5
    world.ledger.database.close()


def test_agent_started_on_a_full_disk_is_ready_once_there_is_room() -> None:
    store = MemoryCommandStore()
    store.full = True
    world = World(store, lambda store: store)
    readiness = world.core._parts.readiness
    world.step_agent()
    assert (readiness.has_stored, world.core._status.current(None).last_error) == (False, "The disk is full.")
    store.full = False
    world.step_agent()
    assert readiness.has_stored
    world.ledger.database.close()


def test_start_that_was_counted_proves_that_the_store_works() -> None:
    world = World(MemoryCommandStore(), lambda store: store)
    assert world.core._parts.readiness.has_stored  # without a commit of its own
    world.ledger.database.close()


def test_refusal_is_shown_ten_minutes_and_until_the_next_good_message() -> None:
    world = World(MemoryCommandStore(), lambda store: store)
    world.settle()
    world.forge_command()
    world.step_agent()
    world.send("again")
    world.clock.turn(300.0)
    world.settle()
    assert "refuses a command" in str(world.core._status.current(None).last_error)
    world.clock.turn(601.0)
    world.step_agent()
    assert "refuses a command" in str(world.core._status.current(None).last_error)
    world.send("again")
    world.settle()
    assert world.core._status.current(None).last_error is None
    world.ledger.database.close()


def world_with_an_unacked_result() -> tuple[World, StoredCommand, EncodedFeedback]:
    world = World(MemoryCommandStore(), lambda store: store)
    world.send("once")
    world.step_server()
    for _ in range(3):
        world.step_agent()
        world.run_handlers()
    (done,) = world.store.with_results()
    assert done.result is not None
    return world, done, done.result


def test_unsigned_ack_deletes_nothing() -> None:
    world, done, result = world_with_an_unacked_result()
    world.forge(Channel.ACK, encode([Ack(done.command.id, result.feedback.digest or "")]))
    world.step_agent()
    assert world.store.done_count() == 1
    world.settle()
    assert world.store.done_count() == 0
    world.ledger.database.close()


def test_result_is_sent_in_the_bytes_that_were_stored() -> None:
    world, _, result = world_with_an_unacked_result()
    sent = [payload for topic, payload in world.broker.heard if topic.endswith("feedback")]
    assert result.encoded in sent
    world.ledger.database.close()
