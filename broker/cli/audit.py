"""acm audit: compares an agent's journal with the ledger."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from broker.cli.documents import document_of
from broker.cli.options import WaitCommand
from broker.cli.progress import AwaitedCommand, status_line, tell_of_wait
from broker.cli.session import LEDGER, Session, with_session
from broker.console.output import literal, second
from broker.durations import parse_duration
from broker.errors import BrokerError
from broker.fleet.models import CommandView
from broker.fleet.report_models import AuditVerdict
from broker.text import counted

__all__ = [
    "AuditDiffers",
    "app",
]


_MAX_SHOWN = 20
app = typer.Typer(no_args_is_help=True)
Agent = Annotated[str, typer.Argument(metavar="AGENT", help="Name of the agent. It must be online.")]
AuditWaitOption = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="[SECONDS]",
        parser=parse_duration,
        show_default=False,
        help="Wait this long for the agent's answers (default: 60 seconds).",
    ),
]
_DEFAULT_WAIT_S = 60.0


class AuditDiffers(BrokerError):
    """An agent's journal and the ledger differ."""

    code = "audit_differs"


@app.command(cls=WaitCommand, epilog="Example: acm audit verify web-01 --wait 2m --json")
@with_session(LEDGER, over_api=True)
def verify(session: Session, agent: Agent, wait: AuditWaitOption = None) -> None:
    """Fetch an agent's journal, compare it with the ledger, and show the differences."""
    with _shown_waits(session) as seen:
        verdict = session.journal_audits.verify_journal(agent, wait or _DEFAULT_WAIT_S, seen)
    session.show(document_of(verdict), _view(verdict))
    if not verdict.agrees:
        raise AuditDiffers(verdict.differences[0].message)


@app.command(cls=WaitCommand, epilog="Example: acm audit accept web-01")
@with_session(LEDGER, over_api=True)
def accept(session: Session, agent: Agent, wait: AuditWaitOption = None) -> None:
    """Accept an agent's journal as it is: show the differences up to now, and do not report them again."""
    with _shown_waits(session) as seen:
        verdict = session.journal_audits.accept_journal(agent, wait or _DEFAULT_WAIT_S, seen)
    session.show(document_of(verdict), _view(verdict))


@contextlib.contextmanager
def _shown_waits(session: Session) -> Iterator[Callable[[CommandView], None]]:
    named: set[str] = set()
    with status_line(quiet=session.printer.for_programs) as show_state:

        def show(command: CommandView) -> None:
            if command.id not in named:
                named.add(command.id)
                tell_of_wait("command", command.id)
            show_state(AwaitedCommand(command.type, command.agent, command.state))

        yield show


def _view(verdict: AuditVerdict) -> RenderableType:
    differing = verdict.difference_count
    count = counted(differing, "difference") if differing else "it agrees with the ledger"
    since, until = second(verdict.since) or "?", second(verdict.until) or "?"
    entries, commands = counted(verdict.entries, "entry", "entries"), counted(verdict.commands, "command")
    lines = [f"The journal of {verdict.agent}: {entries} on {commands}, {since} to {until} UTC: {count}."]
    lines += [f"  {difference.message}" for difference in verdict.differences[:_MAX_SHOWN]]
    lines += [f"  note: {note}" for note in verdict.notes]
    return Group(*map(literal, lines))
