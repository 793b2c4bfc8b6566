"""acm events: what happens to commands and agents."""

from collections import deque
from datetime import datetime
from typing import Annotated

import typer

from broker.cli.completions import complete_agents, complete_commands, complete_operations
from broker.cli.documents import document_of
from broker.cli.identifiers import find_command_id, find_operation_id
from broker.cli.moments import parse_moment
from broker.cli.options import LimitOption
from broker.cli.session import LEDGER, Session, with_session
from broker.cli.watching import RowsAsTheyCome
from broker.console.listing import Column, Listing, Shown, time_column
from broker.errors import InvalidArgument
from broker.fleet.models import EventFilter, EventView
from broker.ledger.event_types import EventType

__all__ = ["app"]


app = typer.Typer()
_EVENTS = Listing[EventView](
    "event",
    (
        time_column("time", lambda it: it.at),
        Column("event", lambda it: it.type),
        Column("agent", lambda it: it.agent),
        Column("command", lambda it: it.command_id),
        Column("type", lambda it: it.command_type),
        Column("outcome", lambda it: it.outcome),
        Column("code", lambda it: it.code),
        Column("changed", lambda it: it.changed, Shown.WIDE),
        Column("group", lambda it: it.group, Shown.WIDE),
        Column("operation", lambda it: it.operation_id, Shown.WIDE),
        Column("id", lambda it: str(it.id), Shown.WIDE),
    ),
    name=lambda it: str(it.id),
    document=document_of,
)


@app.command(epilog="Example: acm events --follow --agent web-01")
@with_session(LEDGER, over_api=True, lists=_EVENTS, only_reads=True)
def events(
    session: Session,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", metavar="AGENT", autocompletion=complete_agents, help="Show only this agent and its commands."
        ),
    ] = None,
    event_type: Annotated[EventType | None, typer.Option("--type", help="Show only events of this type.")] = None,
    command: Annotated[
        str | None,
        typer.Option("--command", metavar="ID", autocompletion=complete_commands, help="Show only this command."),
    ] = None,
    operation: Annotated[
        str | None,
        typer.Option(
            "--operation", metavar="ID", autocompletion=complete_operations, help="Show only this operation's commands."
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since",
            metavar="TIME",
            parser=parse_moment,
            help="Begin with what happened since: 2026-11-29T08:05 or 2h.",
        ),
    ] = None,
    after: Annotated[
        int | None, typer.Option("--after", metavar="ID", min=0, help="Begin after the event with this id.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show what happens from now on (or since, or after), until Ctrl-C.")
    ] = False,
    limit: LimitOption = 100,
) -> None:
    """List events, oldest first, or follow them.

    They are what has happened to commands and agents, and are kept for 7 days.
    """
    fleet = session.fleet
    which = EventFilter(
        event_type,
        agent,
        None if command is None else find_command_id(fleet, command),
        None if operation is None else find_operation_id(fleet, operation),
    )
    options = session.printer.list_options
    if follow and options.sort is not None:
        raise InvalidArgument("--sort cannot be used with --follow: leave one out.", code="conflicting_options")
    found = fleet.events(which, after=after, since=since, follow=follow)
    if follow:
        rows = RowsAsTheyCome(_EVENTS, options)
        rows.print([])
        for event in found:
            rows.print([event])
        return
    newest = deque(found, maxlen=limit + 1)
    is_cut = len(newest) > limit
    shown = tuple(newest)[-limit:]
    title = f"{_EVENTS.counted(len(shown))} shown; there are more, see --limit" if is_cut else None
    session.printer.show_list(_EVENTS, lambda: shown, title=title)
