"""Reads the facts that explain a command from the ledger."""

import socket
from dataclasses import replace
from datetime import datetime

from broker.contract.messages import Status
from broker.enrolment.enrolment_states import enrolment_end
from broker.enrolment.recipients import recipients_of
from broker.fleet.facts import AgentFacts, CommandFacts, Facts, QueueFacts, RunningFacts, ServerFacts
from broker.fleet.view_facts import facts_of
from broker.fleet.views import view_of_command
from broker.ledger.commands import Ahead, LedgerRow
from broker.ledger.ledger import Ledger
from broker.ledger.server_lock import RunningServer, running_servers
from broker.ledger.tables import CommandState
from broker.signing.hold import hold_of
from broker.system.process import is_stopped_by_signal

__all__ = [
    "command_facts",
    "read_facts",
]


_CLOCK_TOLERANCE_S = 60.0


def command_facts(row: LedgerRow) -> CommandFacts:
    """Return the facts of a command in the ledger."""
    return replace(facts_of(view_of_command(row)), is_due=row.is_due)


def read_facts(ledger: Ledger, row: LedgerRow, now: datetime) -> Facts:
    """Read the facts of a command in the ledger at the time `now`; raises LedgerError."""
    is_open = row.state is not CommandState.COMPLETED
    queue = _queue_facts(ledger.ahead_of(row)) if is_open else QueueFacts()
    servers = tuple(map(_server_facts, running_servers(ledger.database))) if is_open else ()
    return Facts(now, command_facts(row), _agent_facts(ledger, row.agent, now), queue, servers)


def _agent_facts(ledger: Ledger, name: str, now: datetime) -> AgentFacts:
    agent, end = ledger.agent(name), enrolment_end(ledger.database, name, now)
    with ledger.database.reading() as connection:
        recipient = recipients_of(connection, [name])[name]
    hold = hold_of(recipient, has_keys=True)  # a server without keys does not start when agents are enrolled
    facts = AgentFacts(
        state=str(agent.state),
        seen_at=agent.seen_at,
        name_conflict=agent.name_conflict,
        enrolment=str(end.state) if end else None,
        enrolment_end=end.at if end else None,
        hold=hold.code if hold else None,
        resend_at=agent.resend_at,
    )
    status = agent.status
    if status is None:
        return facts
    return replace(
        facts,
        store_generation=status.store_generation,
        running_command=status.running_command,
        running_progress=status.running_progress,
        results_waiting=status.results_waiting,
        problems=status.problems or (),
        last_error=status.last_error,
        clock_ahead_s=_clock_ahead_s(status, agent.seen_at),
    )


def _clock_ahead_s(status: Status, seen_at: datetime | None) -> float | None:
    """Return by how much the agent's clock was ahead: no status can have been made after it arrived."""
    if status.clock_behind_s is not None:
        return -float(status.clock_behind_s)
    if status.updated_at is None or seen_at is None:
        return None
    ahead_s = (status.updated_at - seen_at).total_seconds()
    return ahead_s if ahead_s > _CLOCK_TOLERANCE_S else None


def _queue_facts(ahead: Ahead) -> QueueFacts:
    running = ahead.running
    if running is None:
        return QueueFacts(ahead.count)
    since = running.running_at or running.stored_at
    return QueueFacts(ahead.count, RunningFacts(running.command.id, running.command.type, since))


def _server_facts(server: RunningServer) -> ServerFacts:
    is_stopped = server.host == socket.gethostname() and is_stopped_by_signal(server.pid)
    connection = (server.connection_at, server.connection_problem)
    return ServerFacts(server.host, server.pid, server.started_at, *connection, is_stopped=is_stopped)
