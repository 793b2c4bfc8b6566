"""acm-agent journal: list what the audit journal has recorded, even while the agent runs."""

from typing import Annotated

import typer

from broker.console.listing import Column, Listing, time_column
from broker.console.output import Printer
from broker.console.output_options import with_printer
from consumer.cli.completions import complete_recorded
from consumer.cli.journal_events import JournalEvent, read_events
from consumer.cli.options import StateDirectory
from consumer.cli.prefixes import of_command

__all__ = ["app"]


_EVENTS = Listing[JournalEvent](
    "event",
    (
        Column("number", lambda it: it.number),
        time_column("at", lambda it: it.at),
        Column("event", lambda it: it.event),
        Column("command", lambda it: it.command_id),
        Column("detail", lambda it: it.detail),
    ),
    name=lambda it: str(it.number),
    document=JournalEvent.as_json,
)
app = typer.Typer()


@app.command(epilog="Example: acm-agent journal --state /var/lib/acm --limit 20")
@with_printer(_EVENTS)
def journal(
    printer: Printer,
    state: StateDirectory,
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND",
            autocompletion=complete_recorded,
            help="Only this command: its id, or the beginning of it.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1_000_000, help="Show at most this many, the newest.")
    ] = 100,
) -> None:
    """List what happened to the agent's commands, in order; works while the agent runs.

    `acm-agent audit` checks that nothing was changed in the journal.
    """
    from consumer.store.state_directory import refuse_exposed

    refuse_exposed(state, reading=True)
    events = of_command(read_events(state), lambda event: event.command_id, command)
    shown = events[-limit:]
    left_out = f"{_EVENTS.counted(len(shown))} of {len(events)}; see --limit" if len(shown) < len(events) else None
    printer.show_list(_EVENTS, lambda: shown, title=left_out)
