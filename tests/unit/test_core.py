"""The agent's turn, where the disk has no room."""

from datetime import datetime

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
