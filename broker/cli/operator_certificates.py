"""acm api certificate: the certificates of operators, by which the API knows them."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.access.models import OperatorCertificateView
from broker.access.operator_certificates import OperatorCertificateStore, checked_operator, view_of_certificate
from broker.cli.documents import document_of
from broker.cli.grants import DEFAULT_TTL, GroupOption, RoleOption, TtlOption, grant_id, list_of_grants
from broker.cli.session import CA, LEDGER, Session, with_session
from broker.console.listing import Listing
from broker.console.output import second
from broker.durations import parse_duration
from broker.fleet.models import Principal
from broker.fleet.pages import read_pages

if TYPE_CHECKING:
    from broker.access.port import OperatorCertificates

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)
_CERTIFICATES: Listing[OperatorCertificateView] = list_of_grants("certificate")


@app.command(epilog="Example: acm api certificate create alice --role operator --out . --ca /var/lib/acm/ca")
@with_session(CA, LEDGER, creates_ledger=True)
def create(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the person or program: commands are of cert:NAME.")
    ],
    role: RoleOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory for NAME.crt and NAME.key.")],
    group: GroupOption = None,
    ttl: TtlOption = DEFAULT_TTL,
) -> None:
    """Issue a certificate of an operator, with a new private key. They replace earlier files of the same names."""
    principal = Principal(checked_operator(name), role, frozenset(group) if group else None)
    lifetime = timedelta(seconds=parse_duration(ttl))
    certificate = session.authority.write_operator_certificate(name, out, lifetime)
    store = OperatorCertificateStore(session.database, now=session.clock)
    made = view_of_certificate(store.add(principal, certificate, session.origin.name))
    files = {"certificate": str(out / f"{name}.crt"), "key": str(out / f"{name}.key")}
    session.show(
        {**document_of(made), **files},
        f"{files['certificate']} and {files['key']} are valid until {second(made.expires_at)} UTC, for "
        f"{made.principal}, as {role}.",
    )


@app.command("list", epilog="Example: acm api certificate list --json")
@with_session(LEDGER, over_api=True, lists=_CERTIFICATES, only_reads=True)
def list_operator_certificates(session: Session) -> None:
    """List the certificates of operators, newest first."""
    certificates = session.operator_certificates
    session.show_list(_CERTIFICATES, lambda: _all(certificates))


@app.command(epilog="Example: acm api certificate revoke 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER, over_api=True)
def revoke(
    session: Session,
    given_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the certificate, or the beginning of it.")],
) -> None:
    """Revoke a certificate: the API refuses it at once. What its holder has sent stays."""
    certificates = session.operator_certificates
    revoked = certificates.revoke_operator_certificate(grant_id(given_id, _all(certificates)))
    session.show(
        document_of(revoked),
        f"The certificate of {revoked.principal} is revoked. A running enrolment server adds it to the revocation "
        "list.",
    )


def _all(certificates: "OperatorCertificates") -> list[OperatorCertificateView]:
    return read_pages(lambda cursor, count: certificates.operator_certificates(cursor=cursor, limit=count))
