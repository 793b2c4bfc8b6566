"""acm unmatched: results that answer no command of the ledger."""

from typing import Annotated

import typer

from broker.cli.completions import complete_agents
from broker.cli.documents import document_of
from broker.cli.options import LimitOption
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing, time_column
from broker.fleet.pages import read_pages
from broker.fleet.report_models import UnmatchedResultView

__all__ = ["app"]


app = typer.Typer()


_UNMATCHED = Listing[UnmatchedResultView](
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
    document=document_of,
)


def _text_of(unmatched: UnmatchedResultView, member: str) -> str:
    return str(unmatched.result.get(member) or "")


@app.command(epilog="Example: acm unmatched --agent web-01 --json")
@with_session(LEDGER, over_api=True, lists=_UNMATCHED, watches=True, only_reads=True)
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
    reports = session.reports

    def read() -> list[UnmatchedResultView]:
        return read_pages(lambda cursor, count: reports.unmatched(agent=agent, cursor=cursor, limit=count), limit + 1)

    session.show_list(_UNMATCHED, read, limit=limit)
