"""Retained messages on the topics that the server alone writes to."""

import pytest

from tests.simulation.world import World
from tests.support.fakes.memory_store import MemoryCommandStore


@pytest.mark.parametrize("channel", ["control", "ack", "blob-chunk"])
def test_retained_message_is_refused_and_the_status_names_its_topic(channel: str) -> None:
    world = World(MemoryCommandStore(), lambda store: store)
    world.broker.publish(f"acm/web-01/{channel}", b"{}", retain=True)
    world.lose_connection_of_agent()
    world.step_agent()
    world.step_server()
    world.step_agent()
    world.step_server()
    (agent,) = world.ledger.agents()
    world.ledger.database.close()
    assert agent.status is not None
    assert f"A retained message on acm/web-01/{channel} was refused" in (agent.status.last_error or "")
