"""The lines of commands in an agent's log."""

from collections.abc import Iterator, Sequence

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from broker.system.command_log import CommandLog
from consumer.engine.command_events import AgentCommandLog
from tests.simulation.world import World
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore


@pytest.mark.parametrize(("command_type", "code"), [("once", "interrupted"), ("again", None)])
def test_command_that_a_crash_has_interrupted_has_its_end_in_the_log(command_type: str, code: str | None) -> None:
    clock = TurnedClock()
    watch = AgentCommandLog("web-01", CommandLog(clock.now), clock)
    with capture_logs() as logs:
        world = World(MemoryCommandStore(), lambda store: store, watch=watch)
        world.send(command_type)
        world.step_server()
        world.step_agent()
        world.kill_agent_in_handler(0)
        world.settle()
    events = [(it["event"], it["code"]) for it in unfolded(logs) if it["event"] != "command_running"]
    assert events == [
        ("command_accepted", None),
        ("command_interrupted", None),
        ("command_completed", code),
        ("result_acked", None),
    ]
    world.ledger.database.close()


def unfolded(logs: Sequence[EventDict]) -> Iterator[EventDict]:
    """Return what the agent logs of commands, line by line."""
    for entry in logs:
        for line in entry.get("lines", ()):
            yield {"event": line.event, "code": line.code}
        if entry["event"] == "command_interrupted":
            yield {"event": entry["event"], "code": None}
