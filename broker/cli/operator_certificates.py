"""acm api certificate: the certificates of operators, by which the API knows them."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from broker.access.access_tokens import view_of_token
from broker.access.operator_certificates import OperatorCertificate, OperatorCertificateStore, checked_operator
from broker.cli.documents import document_of
from broker.cli.grants import list_of_grants
from broker.cli.session import CA, LEDGER, Session, with_session
from broker.console.listing import Listing
from broker.console.output import second
from broker.contract.messages import JsonObject
from broker.durations import parse_duration
from broker.fleet.models import Principal, Role
from broker.suggestions import only_beginning_with

__all__ = [
    "app",
]


_DEFAULT_TTL = "90d"
app = typer.Typer(no_args_is_help=True)


def _json(made: OperatorCertificate) -> JsonObject:
    return {**document_of(view_of_token(made)), "serial": f"{made.serial:x}"}


_CERTIFICATES: Listing[OperatorCertificate] = list_of_grants("certificate", view_of_token, _json)


@app.command(epilog="Example: acm api certificate create alice --role operator --out . --ca /var/lib/acm/ca")
@with_session(CA, LEDGER, creates_ledger=True)
def create(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the person or program: commands are of cert:NAME.")
    ],
    role: Annotated[Role, typer.Option("--role", help="What it may do; each role may do what those before it may.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory for NAME.crt and NAME.key.")],
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="GROUP", help="Only for the agents of this group; several times for more."),
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", metavar="DURATION", help="Lifetime of the certificate.")] = _DEFAULT_TTL,
) -> None:
    """Issue a certificate of an operator, with a new private key. They replace earlier files of the same names."""
    principal = Principal(checked_operator(name), role, frozenset(group) if group else None)
    lifetime = timedelta(seconds=parse_duration(ttl))
    certificate = session.authority.write_operator_certificate(name, out, lifetime)
    made = _store(session).add(principal, certificate, session.origin.name)
    files = {"certificate": str(out / f"{name}.crt"), "key": str(out / f"{name}.key")}
    session.show(
        {**_json(made), **files},
        f"{files['certificate']} and {files['key']} are valid until {second(made.expires_at)} UTC, for "
        f"{made.principal.name}, as {role}.",
    )


@app.command("list", epilog="Example: acm api certificate list --json")
@with_session(LEDGER, lists=_CERTIFICATES, only_reads=True)
def list_operator_certificates(session: Session) -> None:
    """List the certificates of operators, newest first."""
    session.show_list(_CERTIFICATES, _store(session).all)


@app.command(epilog="Example: acm api certificate revoke 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER)
def revoke(
    session: Session,
    given_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the certificate, or the beginning of it.")],
) -> None:
    """Revoke a certificate: the API refuses it at once. What its holder has sent stays."""
    store = _store(session)
    certificate_id = only_beginning_with(given_id, (made.id for made in store.all())) or given_id
    made = store.revoke(certificate_id)
    session.show(
        _json(made),
        f"The certificate of {made.principal.name} is revoked. A running enrolment server adds it to the revocation "
        "list.",
    )


def _store(session: Session) -> OperatorCertificateStore:
    return OperatorCertificateStore(session.database, now=session.clock)
