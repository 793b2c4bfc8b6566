"""acm active-responses: what is in effect on agents, from each one's last status."""

from typing import Annotated, NamedTuple

import typer

from broker.cli.completions import complete_agents
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing, time_column
from broker.console.output import print_text
from broker.contract.codec import to_json
from broker.contract.messages import PendingReversal
from broker.fleet.targets import check_known
from broker.ledger.agents import AgentRow

__all__ = [
    "app",
]


app = typer.Typer()


class _ActiveResponse(NamedTuple):
    agent: str
    reversal: PendingReversal


_ACTIVE_RESPONSES = Listing[_ActiveResponse](
    "active response",
    (
        Column("agent", lambda it: it.agent),
        Column("script", lambda it: it.reversal.script),
        Column("keys", lambda it: it.reversal.keys),
        time_column("reverses_at", lambda it: it.reversal.reverses_at),
        Column("state", lambda it: it.reversal.state),
        Column("command", lambda it: it.reversal.command_id),
    ),
    name=lambda it: it.reversal.command_id,
    document=lambda it: {"agent": it.agent, **to_json(it.reversal)},
)


@app.command("active-responses", epilog="Example: acm active-responses web-01 --json")
@with_session(LEDGER, lists=_ACTIVE_RESPONSES, watches=True, only_reads=True)
def active_responses(
    session: Session,
    agent: Annotated[
        str | None, typer.Argument(metavar="AGENT", autocompletion=complete_agents, help="Show only this agent.")
    ] = None,
) -> None:
    """List active responses that are in effect and will be reversed, from each agent's last status."""
    if agent is not None:
        check_known(session.ledger, [agent], can_allow=False)

    def read() -> list[_ActiveResponse]:
        rows = _rows(session, agent)
        return [_ActiveResponse(row.name, reversal) for row in rows for reversal in _pending_reversals(row)]

    session.show_list(_ACTIVE_RESPONSES, read)
    rows = _rows(session, agent)
    named = sum(len(_pending_reversals(row)) for row in rows)
    count = sum(row.status.pending_reversal_count for row in rows if row.status)
    if count > named:
        print_text(f"acm: {named} of {count} are listed: a status names only the first 50.", to_stderr=True)


def _rows(session: Session, agent: str | None) -> list[AgentRow]:
    return [row for row in session.ledger.agents() if agent in (None, row.name)]


def _pending_reversals(row: AgentRow) -> tuple[PendingReversal, ...]:
    return row.status.pending_reversals if row.status else ()
