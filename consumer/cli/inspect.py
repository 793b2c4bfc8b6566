"""acm-agent queue, audit and active-responses: show the content of a state directory, even while the agent runs."""

from typing import TYPE_CHECKING, Any

import typer

from broker.contract.states import State
from broker.text import counted
from consumer.cli.options import JsonOption, StateDirectory
from consumer.cli.output import print_content, print_table
from consumer.errors import StoreError

if TYPE_CHECKING:
    from consumer.active_response.records import ResponseRecord
    from consumer.ports import StoredCommand

__all__ = ["app"]


# The ledger's names, as `acm` shows them; store and wire use others.
_SHOWN_STATES = {State.PENDING: "accepted", State.PROCESSING: "running", State.DONE: "completed"}
app = typer.Typer()


@app.command(epilog="Example: acm-agent queue --state /var/lib/acm --json")
def queue(state: StateDirectory, as_json: JsonOption = False) -> None:
    """Show the commands that the agent holds; works while it runs."""
    from consumer.store.reader import read_queue
    from consumer.store.state_directory import refuse_exposed

    refuse_exposed(state, reading=True)
    print_content([_queued_json(stored) for stored in read_queue(state)], _print_queue, as_json=as_json)


def _queued_json(stored: "StoredCommand") -> dict[str, Any]:
    return {
        "id": stored.command.id,
        "type": stored.command.type,
        "state": _SHOWN_STATES[stored.state],
        "received_at": stored.received_at.isoformat(),
        "outcome": str(stored.result.feedback.outcome) if stored.result else None,
    }


def _print_queue(rows: list[dict[str, Any]]) -> None:
    cells = [(row["id"], row["type"], row["state"], row["received_at"], row["outcome"]) for row in rows]
    print_table(counted(len(rows), "command"), ("id", "type", "state", "received", "outcome"), cells)


@app.command(epilog="Example: acm-agent audit --state /var/lib/acm")
def audit(state: StateDirectory, as_json: JsonOption = False) -> None:
    """Show where the audit journal ends, and check its hash chain; works while the agent runs."""
    from broker.contract.journal import chain_faults
    from consumer.store.reader import read_journal
    from consumer.store.state_directory import refuse_exposed

    refuse_exposed(state, reading=True)
    journal = read_journal(state)
    fault = next(chain_faults(journal.anchor, journal.head, journal.pages), None)
    content = {
        "number": journal.head.number,
        "hash": journal.head.hash,
        "first": journal.anchor.number + 1,
        "fault": fault.reason if fault else None,
    }
    print_content(content, _print_journal_end, as_json=as_json)
    if fault:
        raise StoreError(f"The journal's hash chain is broken: {fault.reason}.", code="journal_broken")


def _print_journal_end(end: dict[str, Any]) -> None:
    typer.echo(f"The journal goes from number {end['first']} to {end['number']}, with the hash {end['hash']}.")


@app.command("active-responses", epilog="Example: acm-agent active-responses --state /var/lib/acm --json")
def show_active_responses(state: StateDirectory, as_json: JsonOption = False) -> None:
    """Show the effects of active responses that will be reversed; works while the agent runs."""
    from consumer.active_response.records import read_pending
    from consumer.active_response.responses import DIRECTORY
    from consumer.store.state_directory import refuse_exposed

    if not state.is_dir():
        raise StoreError(f"The state directory {state} does not exist.", code="state_directory_missing")
    refuse_exposed(state, reading=True)
    print_content([_pending_json(entry) for entry in read_pending(state / DIRECTORY)], _print_pending, as_json=as_json)


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


def _print_pending(rows: list[dict[str, Any]]) -> None:
    columns = ("script", "keys", "reverses at (UTC)", "failed", "command")
    print_table(counted(len(rows), "pending reversal"), columns, map(_pending_cells, rows))


def _pending_cells(row: dict[str, Any]) -> tuple[str, ...]:
    failed = f"{row['attempts']}: {row['failure']}" if row["attempts"] else ""
    return row["script"], ", ".join(row["keys"]), row["reverses_at"], failed, row["command_id"]
