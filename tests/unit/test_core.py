"""The agent's turn, where the disk has no room or the clock is wrong."""

from datetime import datetime, timedelta

from broker.contract.codec import encode
from broker.contract.messages import Ack
from broker.contract.topics import Channel
from consumer.errors import StoreFull
from tests.fakes.memory_store import MemoryCommandStore
from tests.simulation.world import World


class FullStore(MemoryCommandStore):
    def drop_expired(self, now: datetime) -> int:
        raise StoreFull("The disk is full.")


def test_housekeeping_on_a_full_disk_ends_nothing() -> None:
    world = World(FullStore(), lambda store: store)
    world.send("again")
    world.settle()
    (row,) = world.ledger.commands()
    assert row.result is not None
    assert row.result["outcome"] == "success"
    world.ledger.close()


def test_a_slow_clock_does_not_run_what_has_expired_and_is_reported() -> None:
    world = World(MemoryCommandStore(), lambda store: store, agent_behind=timedelta(days=1))
    world.send("once", expires_in_s=60)
    world.clock.turn(61)
    world.settle()
    (row,) = world.ledger.commands()
    assert row.result is not None
    assert (row.result["code"], world.effects) == ("expired", [])
    (agent,) = world.ledger.agents()
    assert agent.status is not None
    assert agent.status.clock_behind_s == 86400
    world.ledger.close()


def test_a_slow_clock_does_not_stop_what_is_good() -> None:
    world = World(MemoryCommandStore(), lambda store: store, agent_behind=timedelta(days=1))
    world.send("once", expires_in_s=60)
    world.settle()
    assert len(world.effects) == 1
    world.ledger.close()


def test_an_ack_that_nobody_signed_deletes_nothing() -> None:
    world = World(MemoryCommandStore(), lambda store: store)
    world.send("once")
    world.step_server()
    for _ in range(3):
        world.step_agent()
        world.run_handlers()
    (done,) = world.store.with_results()
    assert done.result is not None
    world.forge(Channel.ACK, encode([Ack(done.command.id, done.result.digest or "")]))
    world.step_agent()
    assert world.store.done_count() == 1
    world.settle()
    assert world.store.done_count() == 0
    world.ledger.close()
