"""acm agents and active-responses: the last status of each agent."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from broker.app.factories import utc_now
from broker.cli.expiry import warn_of_expiry
from broker.cli.output import print_text, second, table
from broker.cli.session import LEDGER, Session, with_session
from broker.cli.targets import check_known
from broker.contract.codec import to_json
from broker.contract.messages import JsonObject, PendingReversal
from broker.enrolment.enrolment_states import EnrolmentState, enrolment_states
from broker.ledger.agents import AgentRow, AgentState
from broker.ledger.server_lock import running_servers
from broker.text import counted, rfc3339

__all__ = [
    "agent_json",
    "agents_table",
    "app",
]


app = typer.Typer()


@app.command(epilog="Example: acm agents --json")
@with_session(LEDGER)
def agents(session: Session) -> None:
    """List agents with the last status that each has published, and the state of its enrolment.

    Warns of certificates of the broker and the servers that expire within 30 days.
    """
    rows = _known_now(session)
    enrolments = enrolment_states(session.database, utc_now())
    document = [{**agent_json(row), **_enrolment_json(enrolments.get(row.name))} for row in rows]
    session.show(document, agents_table(rows, enrolments))
    warn_of_expiry(session)


def _known_now(session: Session) -> list[AgentRow]:
    """Return all agents; while no server runs, it is unknown whether those that were online still are."""
    rows = session.ledger.agents()
    if running_servers(session.database):
        return rows
    print_text("acm: No server runs on this ledger, so statuses are out of date: start acm server.", to_stderr=True)
    return [replace(row, state=AgentState.UNKNOWN) if row.state is AgentState.ONLINE else row for row in rows]


@app.command("active-responses", epilog="Example: acm active-responses web-01 --json")
@with_session(LEDGER)
def active_responses(
    session: Session,
    agent: Annotated[str | None, typer.Argument(metavar="AGENT", help="Show only this agent.")] = None,
) -> None:
    """List active responses that are in effect and will be reversed, from each agent's last status."""
    if agent is not None:
        check_known(session.ledger, [agent], can_allow=False)
    rows = [row for row in session.ledger.agents() if agent in (None, row.name)]
    found = [(row.name, reversal) for row in rows for reversal in _pending_reversals(row)]
    count = sum(row.status.pending_reversal_count for row in rows if row.status)  # a status names only some of them
    session.show([{"agent": name, **to_json(it)} for name, it in found], _active_responses_table(found, count))


def agent_json(row: AgentRow) -> JsonObject:
    """Return an agent's state and last status as JSON, when that was received, and the number of its open commands."""
    status = to_json(row.status) if row.status else {"agent": row.name}
    return {
        **status,
        "online": row.state is AgentState.ONLINE,
        "state": row.state,
        "seen_at": rfc3339(row.seen_at),
        "open_commands": row.open_commands,
        "name_conflict": row.name_conflict,
    }


def _enrolment_json(state: EnrolmentState | None) -> JsonObject:
    return {"enrolment": state, "revoked": state is EnrolmentState.REVOKED}


def agents_table(rows: list[AgentRow], enrolments: Mapping[str, EnrolmentState] = MappingProxyType({})) -> Table:
    """Return agents as a table, with those marked whose enrolment was revoked or has expired."""
    columns = ("agent", "state", "last seen (UTC)", "version", "queue", "running", "open", "last error")
    return table(counted(len(rows), "agent"), columns, (_agent_cells(row, enrolments.get(row.name)) for row in rows))


def _agent_cells(row: AgentRow, enrolment: EnrolmentState | None) -> Iterator[str | Text]:
    status, is_valid = row.status, enrolment in (None, EnrolmentState.VALID)
    yield row.name
    colour = "green" if row.state is AgentState.ONLINE and is_valid else "red"
    yield Text(row.state if is_valid else f"{row.state}, {enrolment}", colour)
    yield second(row.seen_at)
    yield (status.version or "") if status else ""
    yield str(status.queue_depth) if status else ""
    yield (status.running_command or "") if status else ""
    yield str(row.open_commands)
    conflict = f"Another client connected as {row.name}. " if row.name_conflict else ""
    yield conflict + ((status.last_error or "") if status else "")


def _pending_reversals(row: AgentRow) -> tuple[PendingReversal, ...]:
    return row.status.pending_reversals if row.status else ()


def _active_responses_table(found: list[tuple[str, PendingReversal]], count: int) -> Table:
    columns = ("agent", "script", "keys", "reverses at (UTC)", "state", "command")
    cells = (
        (name, it.script, ", ".join(it.keys), second(it.reverses_at), it.state, it.command_id) for name, it in found
    )
    return table(counted(count, "active response"), columns, cells)
