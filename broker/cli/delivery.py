"""Shows what becomes of what was sent, to one agent or to many."""

import contextlib
import sys
from collections.abc import Iterator

from broker.cli.commands import command_panel
from broker.cli.documents import document_of_commands
from broker.cli.operation import progress_and_commands, show_operation
from broker.cli.progress import AwaitedCommand, status_line, tell_of_wait
from broker.cli.session import Session
from broker.console.output import print_text
from broker.contract.messages import RunningProgress
from broker.contract.states import CommandState
from broker.errors import BrokerError
from broker.fleet.models import CommandView, OperationView, Sent
from broker.fleet.outcomes import require_command_success, require_operation_success
from broker.fleet.view_facts import progress_of
from broker.system.signals import raising_on_term

__all__ = [
    "follow",
]


def follow(session: Session, sent: Sent, wait_s: float | None) -> None:
    """Print the id of what was sent; with `wait_s`, its result.

    Raises WaitTimeout, CommandFailed, and what `session.fleet` raises.
    """
    for warning in sent.warnings:
        print_text(f"acm: {warning}", to_stderr=True)
    if sent.command is not None:
        _follow_command(session, sent.command, wait_s)
    elif sent.operation is not None:
        _follow_operation(session, sent.operation, wait_s)


def _follow_command(session: Session, command: CommandView, wait_s: float | None) -> None:
    with _named_if_it_fails("command", command.id, "acm"):
        if wait_s is None:
            session.show(document_of_commands([command]), command.id)
            return
        tell_of_wait("command", command.id)
        with status_line(quiet=session.printer.for_programs) as show:
            command = session.fleet.wait_for_command(command.id, wait_s, lambda it: show(_awaited(session, it)))
        session.show(document_of_commands([command]), command_panel(command))
        sys.stdout.flush()
    require_command_success(command, wait_s)


def _awaited(session: Session, command: CommandView) -> AwaitedCommand:
    """Return what is shown of the command: its state and, if its agent reports that, its phase and percentage."""
    progress = _reported_progress(session, command) if command.state is CommandState.RUNNING else None
    return AwaitedCommand(command.type, command.agent, command.state, progress)


def _reported_progress(session: Session, command: CommandView) -> RunningProgress | None:
    """Return what the status of its agent says; nothing while that cannot be read, as the wait can do without."""
    try:
        return progress_of(command, session.fleet.agent(command.agent).status)
    except BrokerError:
        return None


def _follow_operation(session: Session, operation: OperationView, wait_s: float | None) -> None:
    with _named_if_it_fails("operation", operation.id, "acm operation"):
        if wait_s is None and not session.printer.for_programs:  # the commands may be many, and long
            print_text(operation.id)
            return
        progress, commands = progress_and_commands(session, operation.id, wait_s)
        show_operation(session, progress, commands)
        sys.stdout.flush()
    if wait_s is not None:
        require_operation_success(progress, wait_s)


@contextlib.contextmanager
def _named_if_it_fails(kind: str, name: str, tool: str) -> Iterator[None]:
    """Print the id of what was sent if the block is interrupted or raises: it is processed nevertheless.

    `tool` is the command line whose `show` and `cancel` are for it.
    """
    try:
        with raising_on_term():
            yield
    except BaseException:
        print_text(
            f"acm: The {kind} {name} was sent, and continues. Check it with `{tool} show {name}`, or cancel it with "
            f"`{tool} cancel {name}`.",
            to_stderr=True,
        )
        raise
