"""acm active-responses: what is in effect on agents, from each one's last status."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import typer

from broker.cli.completions import complete_agents
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing, time_column
from broker.console.output import print_text
from broker.contract.codec import to_json
from broker.contract.messages import PendingReversal
from broker.fleet.models import AgentFilter, AgentView
from broker.fleet.pages import read_pages

if TYPE_CHECKING:
    from broker.fleet.port import Fleet

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
@with_session(LEDGER, over_api=True, lists=_ACTIVE_RESPONSES, watches=True, only_reads=True)
def active_responses(
    session: Session,
    agent: Annotated[
        str | None, typer.Argument(metavar="AGENT", autocompletion=complete_agents, help="Show only this agent.")
    ] = None,
) -> None:
    """List active responses that are in effect and will be reversed, from each agent's last status."""
    fleet = session.fleet
    shown: list[AgentView] = []

    def read() -> list[_ActiveResponse]:
        shown[:] = _agents(fleet, agent)
        return [_ActiveResponse(it.name, reversal) for it in shown for reversal in _pending_reversals(it)]

    session.show_list(_ACTIVE_RESPONSES, read)
    named = sum(len(_pending_reversals(it)) for it in shown)
    count = sum((it.status or {}).get("pending_reversal_count", 0) for it in shown)
    if count > named:
        print_text(f"acm: {named} of {count} are listed: a status names only the first 50.", to_stderr=True)


def _agents(fleet: "Fleet", agent: str | None) -> list[AgentView]:
    if agent is not None:
        return [fleet.agent(agent)]
    return read_pages(lambda cursor, count: fleet.agents(AgentFilter(), cursor=cursor, limit=count))


def _pending_reversals(agent: AgentView) -> list[PendingReversal]:
    return msgspec.convert((agent.status or {}).get("pending_reversals", []), list[PendingReversal])
