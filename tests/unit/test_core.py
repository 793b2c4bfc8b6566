"""The agent's turn, where the disk has no room or the clock is wrong."""

from datetime import datetime, timedelta

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
