"""Agents as acm lists and shows them: the last status of each, with its enrolment and its groups."""

from collections.abc import Callable
from typing import Any

from broker.cli.documents import document_of
from broker.console.listing import Cell, Column, Listing, Shown, time_column
from broker.contract.messages import JsonObject
from broker.contract.states import AgentState
from broker.fleet.models import AgentView

__all__ = [
    "AGENTS",
]


def _in_status(member: str) -> Callable[[AgentView], Cell]:
    return lambda agent: (agent.status or {}).get(member)


def _of_status(value: Callable[[JsonObject], Cell]) -> Callable[[AgentView], Cell]:
    return lambda agent: None if agent.status is None else value(agent.status)


def _is_valid(agent: AgentView) -> bool:
    """Return whether its enrolment was neither revoked nor has expired."""
    return agent.enrolment in (None, "valid")


def _state(agent: AgentView) -> str:
    return agent.state if _is_valid(agent) else f"{agent.state},{agent.enrolment}"


def _colour(agent: AgentView) -> str:
    return "green" if agent.state is AgentState.ONLINE and _is_valid(agent) else "red"


def _service(status: JsonObject) -> str:
    service: dict[str, Any] = status.get("service") or {}
    running = {True: "running", False: "stopped"}.get(service.get("running", ""), "")
    return ":".join(filter(None, (str(service.get("kind") or ""), running)))


def _last_error(agent: AgentView) -> str:
    conflict = f"Another client connected as {agent.name}. " if agent.name_conflict else ""
    return conflict + ((agent.status or {}).get("last_error") or "")


AGENTS = Listing[AgentView](
    "agent",
    (
        Column("agent", lambda it: it.name),
        Column("state", _state, style=_colour),
        time_column("last_seen", lambda it: it.seen_at),
        Column("version", _in_status("version")),
        Column("groups", lambda it: it.groups),
        Column("service", _of_status(_service)),
        Column("signed", _of_status(lambda it: "no" if it.get("accepts_unsigned") else "yes")),
        time_column("certificate_until", lambda it: it.certificate_until),
        Column("open", lambda it: it.open_commands),
        Column("last_error", _last_error),
        Column("enrolment", lambda it: it.enrolment, Shown.WIDE),
        Column("queue", _in_status("queue_depth"), Shown.WIDE),
        Column("running", _in_status("running_command"), Shown.WIDE),
        Column("incarnation", _in_status("incarnation"), Shown.ON_REQUEST),
        Column("reversals", _in_status("pending_reversal_count"), Shown.ON_REQUEST),
        Column("types", _in_status("supported_types"), Shown.ON_REQUEST),
    ),
    name=lambda it: it.name,
    document=document_of,
)
