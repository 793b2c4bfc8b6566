"""The facts of a command that acm show has beside its state and its result, for people."""

import json
from collections.abc import Iterator

from rich.table import Table

from broker.console.output import literal, millisecond, seconds
from broker.contract.messages import JsonObject
from broker.fleet.facts import AgentFacts
from broker.fleet.models import CommandView
from broker.fleet.timeline import Bound, Hop, HopClock, HopName, timeline_of
from broker.fleet.view_facts import facts_of

__all__ = [
    "facts_grid",
]


_SHOWN_HOPS = {
    HopName.CREATED: "created",
    HopName.CLAIMED: "sent",
    HopName.STORED: "stored",
    HopName.STARTED: "started",
    HopName.FINISHED: "finished",
    HopName.REPORTED: "reported",
    HopName.ACKED: "acked",
}


def facts_grid(command: CommandView) -> Table:
    """Return who sent a command, its parameters with secrets masked, its number and timeout, times and trace."""
    grid = Table.grid(padding=(0, 2))
    for name, value in (*_given(command.command), *_times(command)):
        grid.add_row(literal(name), literal(value))
    if command.trace_id is not None:
        grid.add_row(literal("trace"), literal(command.trace_id))
    return grid


def _given(command: JsonObject) -> Iterator[tuple[str, str]]:
    origin, sequence, timeout_s = command["origin"], command.get("sequence"), command.get("timeout_s")
    yield "from", f"{origin['name']} ({origin['module']})"
    if command.get("parameters"):
        yield "parameters", json.dumps(command["parameters"], ensure_ascii=False)
    if sequence is not None:
        yield "number", f"{sequence['number']} in the epoch {sequence['epoch']}"
    if timeout_s is not None:
        yield "timeout", seconds(timeout_s)


def _times(command: CommandView) -> Iterator[tuple[str, str]]:
    timeline = timeline_of(facts_of(command), AgentFacts())
    for hop in timeline.hops:
        if hop.name in _SHOWN_HOPS and hop.at is not None:
            yield _SHOWN_HOPS[hop.name], _time(hop)
    if timeline.total_s is not None:
        yield "duration", f"{seconds(timeline.total_s)}, from created to reported"


def _time(hop: Hop) -> str:
    assert hop.at is not None
    before = "right after " if hop.bound is Bound.AFTER else ""
    after = " (the agent's clock)" if hop.clock is HopClock.AGENT else ""
    return f"{before}{millisecond(hop.at)} UTC{after}"
