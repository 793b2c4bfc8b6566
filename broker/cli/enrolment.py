"""acm enrolment: the enrolments of agents, and their revocation."""

from typing import Annotated

import typer
from rich.table import Table

from broker.app.credentials import open_revocation_file
from broker.cli.output import id_column, minute, table
from broker.cli.session import CA_DIR, CRL, LEDGER, Session, with_session
from broker.cli.targets import check_known
from broker.contract.messages import JsonObject
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
@with_session(LEDGER)
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


def revoke_enrolments(session: Session, target: str, reason: RevocationReason) -> None:
    """Revoke, write the list, and show the revoked enrolments; also for the deprecated `acm ca revoke`."""
    authority = session.authority  # one that cannot be opened is reported before anything is revoked
    rows = session.enrolments.revoke(target, reason)
    file = open_revocation_file(session.config, authority, session.enrolments)
    try:
        file.write()
    except BrokerError as error:
        raise CrlNotWritten(f"Revoked, but the revocation list was not written: {error} Run `acm ca crl`.") from error
    session.show(
        [_json(row) for row in rows],
        f"Revoked {counted(len(rows), 'enrolment')}, and wrote {file.path}. {RELOAD_HINT} "
        "A running enrolment server then ends open sessions of revoked enrolments.",
    )


def _json(row: EnrolmentRecord) -> JsonObject:
    return {
        "id": row.id,
        "agent": row.agent,
        "enrolled_at": rfc3339(row.enrolled_at),
        "serial": row.serial,
        "key": row.key,
        "not_after": rfc3339(row.not_after),
        "revoked_at": rfc3339(row.revoked_at),
        "reason": row.reason,
    }


def _table(rows: list[EnrolmentRecord]) -> Table:
    columns = (id_column(), "agent", "valid until (UTC)", "revoked")
    cells = ((row.id, row.agent, minute(row.not_after), row.reason or "") for row in rows)
    return table(counted(len(rows), "enrolment"), columns, cells)
