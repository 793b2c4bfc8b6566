"""acm operation: commands that were sent to many agents at once."""

from collections.abc import Sequence
from typing import Annotated

import typer

from broker.cli.commands import COMMANDS
from broker.cli.completions import complete_operations
from broker.cli.documents import document_of, document_of_agent, document_of_commands
from broker.cli.identifiers import find_operation_id
from broker.cli.options import AbandonOption, LimitOption, WaitCommand, WaitOption
from broker.cli.progress import progress_bar, tell_of_wait
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing, time_column
from broker.contract.messages import JsonObject
from broker.fleet.models import CommandFilter, CommandView, OperationProgress, OperationView
from broker.fleet.outcomes import require_operation_success
from broker.fleet.pages import read_pages
from broker.text import counted

__all__ = [
    "app",
    "progress_and_commands",
    "show_now",
    "show_operation",
]


app = typer.Typer(no_args_is_help=True)
_BY_AGENT = COMMANDS.arranged("agent", "id", "state", "outcome", "code", "message")
OperationId = Annotated[
    str,
    typer.Argument(
        metavar="ID", autocompletion=complete_operations, help="Id of the operation, or the beginning of it."
    ),
]


_OPERATIONS = Listing[OperationView](
    "operation",
    (
        Column("id", lambda it: it.id),
        Column("type", lambda it: it.type),
        Column("target", lambda it: it.target),
        Column("agents", lambda it: it.size),
        time_column("created", lambda it: it.created_at),
    ),
    name=lambda it: it.id,
    document=document_of,
)


@app.command(cls=WaitCommand, epilog="Example: acm operation show 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f --wait 5m")
@with_session(LEDGER, over_api=True, lists=_BY_AGENT, only_reads=True)
def show(session: Session, operation_id: OperationId, wait: WaitOption = None) -> None:
    """Show how many of its commands are in each state, and each agent's outcome.

    With --wait, the exit code reports the outcome.
    """
    progress, commands = progress_and_commands(session, find_operation_id(session.fleet, operation_id), wait)
    show_operation(session, progress, commands)
    if wait is not None:
        require_operation_success(progress, wait)


@app.command("list", epilog="Example: acm operation list --json")
@with_session(LEDGER, over_api=True, lists=_OPERATIONS, watches=True, only_reads=True)
def list_operations(session: Session, limit: LimitOption = 100) -> None:
    """List operations, newest first."""
    fleet = session.fleet

    def read() -> list[OperationView]:
        return read_pages(lambda cursor, count: fleet.operations(cursor=cursor, limit=count), limit + 1)

    session.show_list(_OPERATIONS, read, limit=limit)


@app.command(epilog="Example: acm operation cancel 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER, over_api=True)
def cancel(session: Session, operation_id: OperationId, abandon: AbandonOption = False) -> None:
    """Request the cancellation of all its open commands. Their results report the outcome."""
    fleet = session.fleet
    operation_id = find_operation_id(fleet, operation_id)
    if abandon:
        count = fleet.abandon_operation(operation_id).count
        text = f"{counted(count, 'command')} abandoned."
    else:
        count = fleet.cancel_operation(operation_id).count
        text = f"Cancellation of {counted(count, 'command')} requested."
    session.show({"id": operation_id, "count": count}, text)


def show_now(session: Session, operation_id: str) -> None:
    """Print an operation as it is now, for `acm show`; raises AmbiguousId and UnknownOperation."""
    shown = progress_and_commands(session, find_operation_id(session.fleet, operation_id), None)
    show_operation(session, *shown, more=document_of_agent())


def progress_and_commands(
    session: Session, operation_id: str, wait_s: float | None
) -> tuple[OperationProgress, Sequence[CommandView]]:
    """Return an operation's counts and commands, now or after a wait of at most `wait_s` seconds for its completion."""
    fleet = session.fleet
    progress = fleet.operation(operation_id)
    if wait_s is not None:
        tell_of_wait("operation", operation_id)
        with progress_bar(progress.operation, quiet=session.printer.for_programs) as show_progress:
            progress = fleet.wait_for_operation(operation_id, wait_s, show_progress)
            show_progress(progress)
    return progress, fleet.newest_commands(CommandFilter(operation=operation_id))


def show_operation(
    session: Session, progress: OperationProgress, commands: Sequence[CommandView], more: JsonObject | None = None
) -> None:
    """Print an operation's counts, and each agent's outcome with its message; for programs, also `more` members."""
    operation, by_agent = progress.operation, sorted(commands, key=lambda command: command.agent)
    title = f"{operation.type} for {operation.target}: {progress.summary()}"
    document = {**document_of_commands(by_agent, progress), **(more or {})}
    session.printer.show_list(_BY_AGENT, lambda: by_agent, document=document, title=title)
