"""acm enrolment: the enrolments of agents, and their revocation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.documents import document_of
from broker.cli.expiry import warn_of_expiry
from broker.cli.session import CA_DIR, CRL, LEDGER, Session, with_session
from broker.cli.token import all_tokens
from broker.console.listing import Column, Listing, Shown, time_column
from broker.console.output import minute
from broker.fleet.enrolment_models import EnrolmentView, RevocationReasonName
from broker.fleet.pages import read_pages
from broker.pki.revocation_list import RevocationReason
from broker.suggestions import only_beginning_with
from broker.text import counted

if TYPE_CHECKING:
    from broker.fleet.enrolment_port import Enrolments

__all__ = [
    "ENROLMENTS",
    "RELOAD_HINT",
    "AgentFilter",
    "ReasonOption",
    "TargetArgument",
    "app",
    "list_enrolments",
    "revoke_enrolments",
]


_SHORTEST_BEGINNING = 8  # of an id where a short word is rather the name of an agent
app = typer.Typer(no_args_is_help=True)
RELOAD_HINT = "Mosquitto must reload the list (SIGHUP); `acm broker run --dir` does so itself."
AgentFilter = Annotated[
    str | None, typer.Option("--agent", metavar="AGENT", help="Show only enrolments of this agent.")
]
TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="AGENT|ENROLMENT_ID",
        help="All enrolments of an agent, or one enrolment: its id, or the beginning of it from 8 characters on.",
    ),
]
ReasonOption = Annotated[RevocationReason, typer.Option("--reason", help="Reason in the revocation list.")]


ENROLMENTS = Listing[EnrolmentView](
    "enrolment",
    (
        Column("id", lambda it: it.id),
        Column("agent", lambda it: it.agent),
        Column("state", lambda it: it.state),
        time_column("valid_until", lambda it: it.not_after),
        time_column("revoked", lambda it: it.revoked_at),
        Column("reason", lambda it: it.reason if it.revoked_at else None),
        time_column("enrolled", lambda it: it.enrolled_at, Shown.WIDE),
        Column("serial", lambda it: it.serial, Shown.WIDE),
    ),
    name=lambda it: it.id,
    document=document_of,
)
"""The enrolments; also for the deprecated `acm ca list`."""


@app.command("list", epilog="Example: acm enrolment list --agent web-01 --json")
@with_session(LEDGER, over_api=True, lists=ENROLMENTS, only_reads=True)
def list_(session: Session, agent: AgentFilter = None) -> None:
    """List enrolments, newest first, each with its newest certificate."""
    list_enrolments(session, agent)


@app.command(epilog="Example: acm enrolment revoke web-01 --reason key-compromise --dir /var/lib/acm/ca")
@with_session(CA_DIR, CRL, LEDGER, over_api=True)
def revoke(session: Session, target: TargetArgument, reason: ReasonOption = RevocationReason.UNSPECIFIED) -> None:
    """Revoke one enrolment, or all enrolments and unused tokens of an agent, and write the revocation list."""
    revoke_enrolments(session, target, reason)


def list_enrolments(session: Session, agent: str | None) -> None:
    """Show the enrolments, of one agent unless None; also for the deprecated `acm ca list`."""
    enrolments = session.enrolments
    if agent is not None and not enrolments.enrolments(agent=agent, limit=1).items:
        session.fleet.agent(agent)  # raises UnknownAgent
    session.show_list(ENROLMENTS, lambda: _all(enrolments, agent))
    if not session.is_over_api:
        warn_of_expiry(session)


def revoke_enrolments(session: Session, target: str, reason: RevocationReason) -> None:
    """Revoke, write the list, and show the revoked enrolments; also for the deprecated `acm ca revoke`."""
    enrolments = session.enrolments
    before = _all(enrolments)
    enrolment = _enrolment(enrolments, before, target)
    name: RevocationReasonName = reason.value
    if enrolment is None:
        rows = enrolments.revoke_agent(target, reason=name).enrolments
    else:
        revoked = enrolments.revoke_enrolment(enrolment.id, reason=name)
        rows = (revoked,) if enrolment.revoked_at is None else ()
        target = revoked.id
    session.show(
        [document_of(row) for row in rows],
        f"{_revoked_text(target, rows, before)} The revocation list is written. {RELOAD_HINT} "
        "A running enrolment server then ends open sessions of revoked enrolments.",
    )


def _all(enrolments: "Enrolments", agent: str | None = None) -> list[EnrolmentView]:
    return read_pages(lambda cursor, count: enrolments.enrolments(agent=agent, cursor=cursor, limit=count))


def _enrolment(enrolments: "Enrolments", known: list[EnrolmentView], given: str) -> EnrolmentView | None:
    """Return the only enrolment whose id begins so; None if an agent may be named so."""
    agents = {row.agent for row in known} | {row.agent for row in all_tokens(enrolments)}
    if given in agents or len(given) < _SHORTEST_BEGINNING:
        return None
    found = only_beginning_with(given, (row.id for row in known))
    return next((row for row in known if row.id == found), None)


def _revoked_text(target: str, rows: Sequence[EnrolmentView], before: list[EnrolmentView]) -> str:
    if rows:
        return f"Revoked {counted(len(rows), 'enrolment')}."
    last = next((row for row in before if target in (row.agent, row.id) and row.revoked_at is not None), None)
    if last is None:
        return f"{target} has no enrolment; its unused tokens are revoked."
    return f"No enrolment was revoked: {target} was revoked at {minute(last.revoked_at)} UTC."
