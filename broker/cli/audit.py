"""acm audit: compares an agent's journal with the ledger."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from broker.audit.comparison import Verdict, compare
from broker.audit.request import request_audit
from broker.cli.options import WaitCommand
from broker.cli.progress import AwaitedCommand, status_line, tell_of_wait
from broker.cli.session import LEDGER, Session, with_session
from broker.console.output import literal, second
from broker.contract.messages import JsonObject
from broker.durations import parse_duration
from broker.errors import BrokerError
from broker.fleet.targets import check_known
from broker.ledger.commands import LedgerRow
from broker.ledger.waiting import Wait, waiting
from broker.text import counted, rfc3339

__all__ = [
    "AuditDiffers",
    "app",
]


_MAX_SHOWN, _MAX_IN_JSON = 20, 100
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
@with_session(LEDGER)
def verify(session: Session, agent: Agent, wait: AuditWaitOption = None) -> None:
    """Fetch an agent's journal, compare it with the ledger, and show the differences."""
    audits = session.ledger.audits
    with waiting(session.database, wait or _DEFAULT_WAIT_S, session.tell) as within:
        verdict, requests = _audit(session, agent, within)
        if not verdict.differences:
            within.call(lambda: audits.mark_verified(agent, verdict.head))
            within.call(lambda: audits.drop_pages(requests))
    session.show(_json(agent, verdict), _view(agent, verdict))
    if verdict.differences:
        raise AuditDiffers(verdict.differences[0].message)


@app.command(cls=WaitCommand, epilog="Example: acm audit accept web-01")
@with_session(LEDGER)
def accept(session: Session, agent: Agent, wait: AuditWaitOption = None) -> None:
    """Accept an agent's journal as it is: show the differences up to now, and do not report them again."""
    audits = session.ledger.audits
    with waiting(session.database, wait or _DEFAULT_WAIT_S, session.tell) as within:
        verdict, requests = _audit(session, agent, within)
        within.call(lambda: audits.accept(agent, verdict.head))
        within.call(lambda: audits.drop_pages(requests))
    session.show(_json(agent, verdict), _view(agent, verdict))


def _audit(session: Session, agent: str, wait: Wait) -> tuple[Verdict, tuple[str, ...]]:
    check_known(session.ledger, [agent], can_allow=False)
    named: set[str] = set()
    with status_line(quiet=session.printer.for_programs) as show_state:

        def show(row: LedgerRow) -> None:
            if row.command.id not in named:
                named.add(row.command.id)
                tell_of_wait("command", row.command.id)
            show_state(AwaitedCommand(row.command.type, row.agent, row.state))

        journal, side = request_audit(session.ledger, agent, session.origin, wait, show)
    return compare(journal, side), side.requests


def _json(agent: str, verdict: Verdict) -> JsonObject:
    differences = verdict.differences[:_MAX_IN_JSON]
    return {
        "agent": agent,
        "agrees": not verdict.differences,
        "differences": [{**asdict(difference), "at": rfc3339(difference.at)} for difference in differences],
        "difference_count": len(verdict.differences),
        "notes": list(verdict.notes),
        "entries": verdict.entries,
        "commands": verdict.commands,
        "since": rfc3339(verdict.since),
        "until": rfc3339(verdict.until),
        "head": asdict(verdict.head),
    }


def _view(agent: str, verdict: Verdict) -> RenderableType:
    differences = verdict.differences
    count = counted(len(differences), "difference") if differences else "it agrees with the ledger"
    since, until = second(verdict.since) or "?", second(verdict.until) or "?"
    entries, commands = counted(verdict.entries, "entry", "entries"), counted(verdict.commands, "command")
    lines = [f"The journal of {agent}: {entries} on {commands}, {since} to {until} UTC: {count}."]
    lines += [f"  {difference.message}" for difference in differences[:_MAX_SHOWN]]
    lines += [f"  note: {note}" for note in verdict.notes]
    return Group(*map(literal, lines))
