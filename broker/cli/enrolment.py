"""acm enrolment: the enrolments of agents, and their revocation."""

from typing import Annotated

import typer
from rich.table import Table

from broker.app.credentials import open_revocation_file
from broker.app.factories import utc_now
from broker.cli.expiry import warn_of_expiry
from broker.cli.output import id_column, minute, table
from broker.cli.session import CA_DIR, CRL, LEDGER, Session, with_session
from broker.cli.targets import check_known
from broker.contract.messages import JsonObject
from broker.enrolment.enrolment_states import EnrolmentState
from broker.enrolment.records import EnrolmentRecord
from broker.errors import BrokerError
from broker.pki.revocation_list import RevocationReason
from broker.text import counted, rfc3339

__all__ = [
    "RELOAD_HINT",
    "AgentFilter",
    "ReasonOption",
    "TargetArgument",
    "app",
    "list_enrolments",
    "revoke_enrolments",
]


app = typer.Typer(no_args_is_help=True)
RELOAD_HINT = "Mosquitto must reload the list (SIGHUP); `acm broker run --dir` does so itself."
AgentFilter = Annotated[
    str | None, typer.Option("--agent", metavar="AGENT", help="Show only enrolments of this agent.")
]
TargetArgument = Annotated[
    str, typer.Argument(metavar="AGENT|ENROLMENT_ID", help="All enrolments of an agent, or one enrolment.")
]
ReasonOption = Annotated[RevocationReason, typer.Option("--reason", help="Reason in the revocation list.")]


class CrlNotWritten(BrokerError):
    """The revocation is recorded, but the list that the broker reads does not have it yet."""

    code = "crl_not_written"


@app.command("list", epilog="Example: acm enrolment list --agent web-01 --json")
@with_session(LEDGER, only_reads=True)
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
    rows = session.enrolments.enrolments(agent)
    if agent is not None and not rows:
        check_known(session.ledger, [agent], can_allow=False)
    session.show([_json(row) for row in rows], _table(rows))
    warn_of_expiry(session)


def revoke_enrolments(session: Session, target: str, reason: RevocationReason) -> None:
    """Revoke, write the list, and show the revoked enrolments; also for the deprecated `acm ca revoke`."""
    authority = session.authority  # one that cannot be opened is reported before anything is revoked
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


def _revoked_text(target: str, rows: list[EnrolmentRecord], before: list[EnrolmentRecord]) -> str:
    if rows:
        return f"Revoked {counted(len(rows), 'enrolment')}."
    last = next((row for row in before if target in (row.agent, row.id) and row.revoked_at is not None), None)
    if last is None:
        return f"{target} has no enrolment; its unused tokens are revoked."
    return f"No enrolment was revoked: {target} was revoked at {minute(last.revoked_at)} UTC."


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


def _table(rows: list[EnrolmentRecord]) -> Table:
    columns = (id_column(), "agent", "state", "valid until (UTC)", "revoked (UTC)")
    cells = ((row.id, row.agent, _state(row), minute(row.not_after), _revoked_cell(row)) for row in rows)
    return table(counted(len(rows), "enrolment"), columns, cells)


def _state(row: EnrolmentRecord) -> EnrolmentState:
    return EnrolmentState.of(row.not_after if row.revoked_at is None else None, utc_now())


def _revoked_cell(row: EnrolmentRecord) -> str:
    return f"{minute(row.revoked_at)} ({row.reason})" if row.revoked_at is not None else ""
