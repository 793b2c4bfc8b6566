"""acm agents and active-responses: the last status of each agent."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from broker.cli.output import second, table
from broker.cli.session import LEDGER, Session, with_session
from broker.cli.targets import check_known
from broker.contract.codec import to_json
from broker.contract.messages import JsonObject, PendingReversal
from broker.ledger.agents import AgentRow
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
    """List agents with the last status that each has published."""
    rows = session.ledger.agents()
    session.show([agent_json(row) for row in rows], agents_table(rows))


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
    """Return an agent's last status as JSON, when it was received, and the number of its open commands."""
    status = to_json(row.status) if row.status else {"agent": row.name, "online": False}
    return {**status, "seen_at": rfc3339(row.seen_at), "open_commands": row.open_commands}


def agents_table(rows: list[AgentRow]) -> Table:
    """Return agents as a table."""
    columns = ("agent", "online", "version", "queue", "running", "open", "last error")
    return table(counted(len(rows), "agent"), columns, (_agent_cells(row) for row in rows))


def _agent_cells(row: AgentRow) -> Iterator[str | Text]:
    status = row.status
    yield row.name
    yield Text("yes", "green") if status and status.online else Text("no", "red")
    yield (status.version or "") if status else ""
    yield str(status.queue_depth) if status else ""
    yield (status.running_command or "") if status else ""
    yield str(row.open_commands)
    yield (status.last_error or "") if status else ""


def _pending_reversals(row: AgentRow) -> tuple[PendingReversal, ...]:
    return row.status.pending_reversals if row.status else ()


def _active_responses_table(found: list[tuple[str, PendingReversal]], count: int) -> Table:
    columns = ("agent", "script", "keys", "reverses at (UTC)", "state", "command")
    cells = (
        (name, it.script, ", ".join(it.keys), second(it.reverses_at), it.state, it.command_id) for name, it in found
    )
    return table(counted(count, "active response"), columns, cells)
