"""acm unmatched: results that answer no command of the ledger."""

from typing import Annotated

import msgspec
import typer

from broker.cli.completions import complete_agents
from broker.cli.options import LimitOption
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing, time_column
from broker.fleet.targets import check_known
from broker.fleet.views import view_of_unmatched
from broker.ledger.unmatched_results import UnmatchedResult

__all__ = ["app"]


app = typer.Typer()


_UNMATCHED = Listing[UnmatchedResult](
    "unmatched result",
    (
        Column("command", lambda it: it.command_id),
        Column("agent", lambda it: it.agent),
        time_column("received", lambda it: it.received_at),
        Column("outcome", lambda it: _text_of(it, "outcome")),
        Column("code", lambda it: _text_of(it, "code")),
        Column("message", lambda it: _text_of(it, "message")),
    ),
    name=lambda it: it.command_id,
    document=lambda it: msgspec.to_builtins(view_of_unmatched(it)),
)


def _text_of(unmatched: UnmatchedResult, member: str) -> str:
    return str(unmatched.result.get(member) or "")


@app.command(epilog="Example: acm unmatched --agent web-01 --json")
@with_session(LEDGER, lists=_UNMATCHED, watches=True, only_reads=True)
def unmatched(
    session: Session,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", metavar="AGENT", autocompletion=complete_agents, help="Show only results of this agent."
        ),
    ] = None,
    limit: LimitOption = 100,
) -> None:
    """List results that answer no open command, newest first: of a command that is unknown, or has another result."""
    if agent is not None:
        check_known(session.ledger, [agent], can_allow=False)
    session.show_list(_UNMATCHED, lambda: session.ledger.unmatched_results(agent, limit + 1), limit=limit)
