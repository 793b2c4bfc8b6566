"""acm operation: commands that were sent to many agents at once."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from broker.cli.commands import command_json, outcome_text
from broker.cli.options import AbandonOption, LimitOption, WaitCommand, WaitOption
from broker.cli.output import id_column, newest_of, print_text, second, table
from broker.cli.progress import progress_bar, waiting_for
from broker.cli.session import LEDGER, Session, with_session
from broker.contract.messages import JsonObject
from broker.ledger.commands import LedgerRow
from broker.ledger.operations import Operation, Progress
from broker.ledger.waiting import require_operation_success, wait_for_operation
from broker.text import counted, rfc3339

__all__ = [
    "app",
    "operation_json",
    "operation_view",
    "progress_and_rows",
]


app = typer.Typer(no_args_is_help=True)
OperationId = Annotated[str, typer.Argument(metavar="ID", help="Id of the operation.")]


@app.command(cls=WaitCommand, epilog="Example: acm operation show 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f --wait 5m")
@with_session(LEDGER, only_reads=True)
def show(session: Session, operation_id: OperationId, wait: WaitOption = None) -> None:
    """Show how many of its commands are in each state, and each agent's outcome.

    With --wait, the exit code reports the outcome.
    """
    operation = session.ledger.operations.get(operation_id)
    progress, rows = progress_and_rows(session, operation, wait)
    session.show(operation_json(operation, progress, rows), operation_view(operation, progress, rows))
    if wait is not None:
        require_operation_success(operation, progress, wait)


@app.command("list", epilog="Example: acm operation list --json")
@with_session(LEDGER, only_reads=True)
def list_operations(session: Session, limit: LimitOption = 100) -> None:
    """List operations, newest first."""
    operations, title = newest_of(session.ledger.operations.newest(limit + 1), limit, "operation")
    session.show([_operation_facts(operation) for operation in operations], _operations_table(operations, title))


@app.command(epilog="Example: acm operation cancel 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER, json=False)
def cancel(session: Session, operation_id: OperationId, abandon: AbandonOption = False) -> None:
    """Request the cancellation of all its open commands. Their results report the outcome."""
    if abandon:
        count, done = session.ledger.abandon_operation(operation_id), "abandoned"
        print_text(f"{counted(count, 'command')} {done}.")
    else:
        count = session.ledger.cancel_operation(operation_id)
        print_text(f"Cancellation of {counted(count, 'command')} requested.")


def progress_and_rows(session: Session, operation: Operation, wait_s: float | None) -> tuple[Progress, list[LedgerRow]]:
    """Return an operation's counts and commands, now or after a wait of at most `wait_s` seconds for its completion."""
    ledger = session.ledger
    if wait_s is None:
        return ledger.operations.progress(operation.id), ledger.commands(operation_id=operation.id, limit=None)
    with waiting_for(session, wait_s, "operation", operation.id) as wait:
        with progress_bar(operation, quiet=session.as_json) as show_progress:
            progress = wait_for_operation(ledger, operation, wait, show_progress)
        return progress, wait.call(lambda: ledger.commands(operation_id=operation.id, limit=None))


def operation_json(operation: Operation, progress: Progress, rows: list[LedgerRow]) -> JsonObject:
    """Return an operation, its counts by state and its commands as JSON."""
    commands = [command_json(row) for row in rows]
    return {"operation": _operation_facts(operation), "counts": progress.counts(), "commands": commands}


def operation_view(operation: Operation, progress: Progress, rows: list[LedgerRow]) -> Table:
    """Return an operation's counts, and each agent's outcome with the start of its message."""
    columns = ("agent", id_column(), "state", "outcome", "message")
    title = f"{operation.command_type} for {operation.target}: {progress.summary()}"
    return table(title, columns, (_cells(row) for row in sorted(rows, key=lambda row: row.agent)))


def _cells(row: LedgerRow) -> tuple[str | Text, ...]:
    message = (row.result or {}).get("message", "")
    return row.agent, row.command.id, row.state, outcome_text(row), message


def _operation_facts(operation: Operation) -> JsonObject:
    return {
        "id": operation.id,
        "type": operation.command_type,
        "target": operation.target,
        "size": operation.size,
        "created_at": rfc3339(operation.created_at),
    }


def _operations_table(operations: Sequence[Operation], title: str) -> Table:
    columns = (id_column(), "type", "target", "agents", "created (UTC)")
    cells = ((it.id, it.command_type, it.target, str(it.size), second(it.created_at)) for it in operations)
    return table(title, columns, cells)
