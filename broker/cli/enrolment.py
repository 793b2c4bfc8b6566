"""acm enrolment: the enrolments of agents, and their revocation."""

from typing import Annotated

import typer

from broker.app.credentials import open_revocation_file
from broker.app.factories import utc_now
from broker.cli.expiry import warn_of_expiry
from broker.cli.session import CA_DIR, CRL, LEDGER, Session, with_session
from broker.console.listing import Column, Listing, Shown, time_column
from broker.console.output import minute
from broker.contract.messages import JsonObject
from broker.enrolment.enrolment_states import EnrolmentState
from broker.enrolment.records import EnrolmentRecord
from broker.errors import BrokerError
from broker.fleet.targets import check_known
from broker.pki.revocation_file import CrlNotWritten
from broker.pki.revocation_list import RevocationReason
from broker.suggestions import only_beginning_with
from broker.text import counted, rfc3339

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


def _json(row: EnrolmentRecord) -> JsonObject:
    return {
        "id": row.id,
        "agent": row.agent,
        "enrolled_at": rfc3339(row.enrolled_at),
        "serial": row.serial,
        "key": row.key,
        "not_after": rfc3339(row.not_after),
        "state": _state(row),
        "revoked_at": rfc3339(row.revoked_at),
        "reason": row.reason,
    }


def _state(row: EnrolmentRecord) -> EnrolmentState:
    return EnrolmentState.of(row.not_after if row.revoked_at is None else None, utc_now())


ENROLMENTS = Listing[EnrolmentRecord](
    "enrolment",
    (
        Column("id", lambda it: it.id),
        Column("agent", lambda it: it.agent),
        Column("state", _state),
        time_column("valid_until", lambda it: it.not_after),
        time_column("revoked", lambda it: it.revoked_at),
        Column("reason", lambda it: it.reason if it.revoked_at else None),
        time_column("enrolled", lambda it: it.enrolled_at, Shown.WIDE),
        Column("serial", lambda it: it.serial, Shown.WIDE),
    ),
    name=lambda it: it.id,
    document=_json,
)
"""The enrolments; also for the deprecated `acm ca list`."""


@app.command("list", epilog="Example: acm enrolment list --agent web-01 --json")
@with_session(LEDGER, lists=ENROLMENTS, only_reads=True)
def list_(session: Session, agent: AgentFilter = None) -> None:
    """List enrolments, newest first, each with its newest certificate."""
    list_enrolments(session, agent)


@app.command(epilog="Example: acm enrolment revoke web-01 --reason key-compromise --dir /var/lib/acm/ca")
@with_session(CA_DIR, CRL, LEDGER)
def revoke(session: Session, target: TargetArgument, reason: ReasonOption = RevocationReason.UNSPECIFIED) -> None:
    """Revoke one enrolment, or all enrolments and unused tokens of an agent, and write the revocation list."""
    revoke_enrolments(session, target, reason)


def list_enrolments(session: Session, agent: str | None) -> None:
    """Show the enrolments, of one agent unless None; also for the deprecated `acm ca list`."""
    if agent is not None and not session.enrolments.enrolments(agent):
        check_known(session.ledger, [agent], can_allow=False)
    session.show_list(ENROLMENTS, lambda: session.enrolments.enrolments(agent))
    warn_of_expiry(session)


def revoke_enrolments(session: Session, target: str, reason: RevocationReason) -> None:
    """Revoke, write the list, and show the revoked enrolments; also for the deprecated `acm ca revoke`."""
    authority = session.authority  # one that cannot be opened is reported before anything is revoked
    target = _target(session, target)
    rows = session.enrolments.revoke(target, reason)
    before = [] if rows else session.enrolments.enrolments()
    file = open_revocation_file(session.config, authority, session.enrolments)
    try:
        file.write()
    except BrokerError as error:
        raise CrlNotWritten(f"Revoked, but the revocation list was not written: {error} Run `acm ca crl`.") from error
    session.show(
        [_json(row) for row in rows],
        f"{_revoked_text(target, rows, before)} {file.path} is written. {RELOAD_HINT} "
        "A running enrolment server then ends open sessions of revoked enrolments.",
    )


def _target(session: Session, given: str) -> str:
    """Return the id of the only enrolment that begins so, unless an agent may be named so."""
    enrolments = session.enrolments.enrolments()
    agents = {row.agent for row in enrolments} | {row.agent for row in session.tokens.all()}
    if given in agents or len(given) < _SHORTEST_BEGINNING:
        return given
    return only_beginning_with(given, (row.id for row in enrolments)) or given


def _revoked_text(target: str, rows: list[EnrolmentRecord], before: list[EnrolmentRecord]) -> str:
    if rows:
        return f"Revoked {counted(len(rows), 'enrolment')}."
    last = next((row for row in before if target in (row.agent, row.id) and row.revoked_at is not None), None)
    if last is None:
        return f"{target} has no enrolment; its unused tokens are revoked."
    return f"No enrolment was revoked: {target} was revoked at {minute(last.revoked_at)} UTC."
