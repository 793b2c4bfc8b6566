"""acm-agent queue, audit and active-responses: show the content of a state directory, even while the agent runs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.console.listing import Column, Listing, Shown, time_column
from broker.console.output import Printer
from broker.console.output_options import with_printer
from broker.contract.states import State
from broker.text import rfc3339
from consumer.cli.completions import complete_queued
from consumer.cli.options import StateDirectory
from consumer.cli.prefixes import of_command
from consumer.errors import StoreError

if TYPE_CHECKING:
    from consumer.active_response.records import ResponseRecord
    from consumer.ports import StoredCommand

__all__ = ["app"]


# The ledger's names, as `acm` shows them; store and wire use others.
_SHOWN_STATES = {State.PENDING: "accepted", State.PROCESSING: "running", State.DONE: "completed"}


def _outcome(stored: "StoredCommand") -> str | None:
    return str(stored.result.feedback.outcome) if stored.result else None


def _queued_json(stored: "StoredCommand") -> dict[str, Any]:
    return {
        "id": stored.command.id,
        "type": stored.command.type,
        "state": _SHOWN_STATES[stored.state],
        "received_at": rfc3339(stored.received_at),
        "outcome": _outcome(stored),
    }


_QUEUE = Listing["StoredCommand"](
    "command",
    (
        Column("id", lambda it: it.command.id),
        Column("type", lambda it: it.command.type),
        Column("state", lambda it: _SHOWN_STATES[it.state]),
        time_column("received", lambda it: it.received_at),
        Column("outcome", _outcome),
        time_column("started", lambda it: it.started_at, Shown.WIDE),
    ),
    name=lambda it: it.command.id,
    document=_queued_json,
)
app = typer.Typer()


@app.command(epilog="Example: acm-agent queue --state /var/lib/acm --json")
@with_printer(_QUEUE)
def queue(
    printer: Printer,
    state: StateDirectory,
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND", autocompletion=complete_queued, help="Only this command: its id, or the beginning of it."
        ),
    ] = None,
) -> None:
    """Show the commands that the agent holds; works while it runs."""
    from broker.system.logging import configure_logs
    from consumer.store.reader import read_queue
    from consumer.store.state_directory import refuse_exposed

    configure_logs("error")  # on stderr: a row that cannot be read is logged
    refuse_exposed(state, reading=True)
    rows = of_command(read_queue(state), lambda stored: stored.command.id, command)
    printer.show_list(_QUEUE, lambda: rows)


@app.command(epilog="Example: acm-agent audit --state /var/lib/acm")
@with_printer()
def audit(printer: Printer, state: StateDirectory) -> None:
    """Show where the audit journal ends, and check its hash chain; works while the agent runs."""
    from broker.contract.journal import chain_faults
    from consumer.store.reader import read_journal
    from consumer.store.state_directory import refuse_exposed

    refuse_exposed(state, reading=True)
    journal = read_journal(state)
    fault = next(chain_faults(journal.anchor, journal.head, journal.pages), None)
    first, head = journal.anchor.number + 1, journal.head
    printer.show(
        {"number": head.number, "hash": head.hash, "first": first, "fault": fault.reason if fault else None},
        f"The journal goes from number {first} to {head.number}, with the hash {head.hash}.",
    )
    if fault:
        raise StoreError(f"The journal's hash chain is broken: {fault.reason}.", code="journal_broken")


def _pending_json(entry: "ResponseRecord") -> dict[str, Any]:
    reversal = entry.reversal
    assert reversal is not None
    return {
        "script": entry.script,
        "keys": list(entry.keys),
        "reverses_at": f"{reversal.due_at:%Y-%m-%dT%H:%M:%SZ}",
        "confirmed": entry.confirmed,
        "offence": entry.offence,
        "attempts": reversal.attempts,
        "failure": reversal.failure,
        "command_id": entry.command_id,
    }


def _failed(entry: "ResponseRecord") -> str | None:
    reversal = entry.reversal
    return f"{reversal.attempts}: {reversal.failure}" if reversal and reversal.attempts else None


_PENDING = Listing["ResponseRecord"](
    "pending reversal",
    (
        Column("script", lambda it: it.script),
        Column("keys", lambda it: it.keys),
        time_column("reverses_at", lambda it: it.reversal.due_at if it.reversal else None),
        Column("failed", _failed),
        Column("command", lambda it: it.command_id),
    ),
    name=lambda it: it.command_id,
    document=_pending_json,
)


@app.command("active-responses", epilog="Example: acm-agent active-responses --state /var/lib/acm --json")
@with_printer(_PENDING)
def show_active_responses(printer: Printer, state: StateDirectory) -> None:
    """Show the effects of active responses that will be reversed; works while the agent runs."""
    from consumer.active_response.records import read_pending
    from consumer.active_response.responses import DIRECTORY
    from consumer.store.state_directory import refuse_exposed

    if not state.is_dir():
        raise StoreError(f"The state directory {state} does not exist.", code="state_directory_missing")
    refuse_exposed(state, reading=True)
    printer.show_list(_PENDING, lambda: list(read_pending(state / DIRECTORY)))
