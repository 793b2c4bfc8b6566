"""acm active-responses: what is in effect on agents, from each one's last status."""

from typing import Annotated

import typer
from rich.table import Table

from broker.cli.output import second, table
from broker.cli.session import LEDGER, Session, with_session
from broker.cli.targets import check_known
from broker.contract.codec import to_json
from broker.contract.messages import PendingReversal
from broker.ledger.agents import AgentRow
from broker.text import counted

__all__ = [
    "app",
]


app = typer.Typer()


@app.command("active-responses", epilog="Example: acm active-responses web-01 --json")
@with_session(LEDGER, only_reads=True)
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


def _pending_reversals(row: AgentRow) -> tuple[PendingReversal, ...]:
    return row.status.pending_reversals if row.status else ()


def _active_responses_table(found: list[tuple[str, PendingReversal]], count: int) -> Table:
    columns = ("agent", "script", "keys", "reverses at (UTC)", "state", "command")
    cells = (
        (name, it.script, ", ".join(it.keys), second(it.reverses_at), it.state, it.command_id) for name, it in found
    )
    return table(counted(count, "active response"), columns, cells)
