"""acm ca: the certificate authority, its certificates for servers, and its revocation list."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from broker.app.credentials import open_revocation_file
from broker.app.setting_up import create_identities
from broker.cli import rollover
from broker.cli.enrolment import (
    ENROLMENTS,
    RELOAD_HINT,
    AgentFilter,
    ReasonOption,
    TargetArgument,
    list_enrolments,
    revoke_enrolments,
)
from broker.cli.session import CA_DIR, CRL, LEDGER, Session, with_session
from broker.console.output import minute, print_text
from broker.pki.authority import SERVER_CERTIFICATE, SERVER_KEY
from broker.pki.revocation_list import RevocationReason
from broker.text import rfc3339

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)
app.add_typer(rollover.app, name="rollover", help="Replace the authority by a successor.")


@app.command(epilog="Example: acm ca init --dir /var/lib/acm/ca")
@with_session(CA_DIR, uses_default=False)
def init(
    session: Session,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name in the authority's certificate.")
    ] = "acm authority",
) -> None:
    """Create an authority in an empty directory, with an empty revocation list and a key that signs commands.

    If that was interrupted, repeat it.
    """
    create_identities(session.config, name)
    directory = session.config.ca
    fingerprint = session.authority.fingerprint
    session.show(
        {"directory": directory, "fingerprint": fingerprint},
        f"The authority is in {directory}; keep a copy of it in a safe place.\nFingerprint: {fingerprint}\n"
        f"Next: acm broker config --ca {directory} --out DIR",
    )


@app.command(epilog="Example: acm ca server-certificate mqtt.example.org 192.0.2.7 --dir /var/lib/acm/ca")
@with_session(CA_DIR)
def server_certificate(
    session: Session,
    hosts: Annotated[list[str], typer.Argument(metavar="HOST...", help="Names and IP addresses of the server.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Directory for server.crt and server.key (default: that of --dir)."),
    ] = None,
) -> None:
    """Issue a certificate, valid for one year, for the broker or the enrolment server, with a new private key.

    They replace earlier files of the same names.
    """
    place = out or Path(session.config.ca)
    until = session.authority.write_server_certificate(hosts, place).not_valid_after_utc
    _show_pair(session, place / SERVER_CERTIFICATE, place / SERVER_KEY, until)


@app.command(epilog="Example: acm ca client-certificate --out /etc/acm --dir /var/lib/acm/ca")
@with_session(CA_DIR)
def client_certificate(
    session: Session,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory for NAME.crt and NAME.key.")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Client id of the server (default: acm-server).")
    ] = None,
) -> None:
    """Issue a certificate, valid for one year, for the account of `acm server` at the broker.

    It cannot be revoked. For agents use `acm token create`.
    """
    account = name or session.config.client_id
    until = session.authority.write_client_certificate(account, out, account).not_valid_after_utc
    _show_pair(session, out / f"{account}.crt", out / f"{account}.key", until)


@app.command(epilog="Example: acm ca crl --dir /var/lib/acm/ca --crl /etc/mosquitto/acm/crl.pem")
@with_session(CA_DIR, CRL, LEDGER, creates_ledger=True)
def crl(session: Session) -> None:
    """Write the revocation list, valid for seven days. A running enrolment server does so every day."""
    file = open_revocation_file(session.config, session.authority, session.enrolment_store)
    until = file.write()
    session.show(
        {"crl": str(file.path), "next_update": rfc3339(until)},
        f"{file.path} is valid until {minute(until)} UTC. {RELOAD_HINT}",
    )


@app.command("list", hidden=True)
@with_session(LEDGER, lists=ENROLMENTS, only_reads=True)
def list_(session: Session, agent: AgentFilter = None) -> None:
    """List enrolments. Use `acm enrolment list`."""
    _warn_deprecated("list")
    list_enrolments(session, agent)


@app.command(hidden=True)
@with_session(CA_DIR, CRL, LEDGER)
def revoke(session: Session, target: TargetArgument, reason: ReasonOption = RevocationReason.UNSPECIFIED) -> None:
    """Revoke enrolments. Use `acm enrolment revoke`."""
    _warn_deprecated("revoke")
    revoke_enrolments(session, target, reason)


def _warn_deprecated(name: str) -> None:
    print_text(f"acm: `acm ca {name}` is deprecated; use `acm enrolment {name}`.", to_stderr=True)


def _show_pair(session: Session, certificate: Path, key: Path, until: datetime) -> None:
    session.show(
        {"certificate": str(certificate), "key": str(key), "not_after": rfc3339(until)},
        f"{certificate} and {key} are valid until {minute(until)} UTC.",
    )
