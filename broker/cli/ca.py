"""acm ca: the authority, its certificates for servers, and the revocation of what agents hold."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from broker.app.config import load_config
from broker.app.factories import open_authority, open_enrolments, open_revocation_file, signing_keys_path
from broker.cli.options import ConfigOption, JsonOption, LedgerOption
from broker.cli.output import iso, literal, print_json
from broker.contract.messages import JsonObject
from broker.enrolment.store import Enrolment
from broker.errors import BrokerError
from broker.pki.authority import SERVER_CERTIFICATE, SERVER_KEY, create_authority
from broker.pki.revocation_list import RevocationReason
from broker.signing.key_store import create_signing_keys
from broker.text import counted

__all__ = [
    "ca_app",
]


ca_app = typer.Typer(no_args_is_help=True, help="The certificate authority of the agents and the broker.")
DirOption = Annotated[
    str | None, typer.Option("--dir", metavar="DIR", help="The authority's directory; configured as ca.")
]
CrlOption = Annotated[
    str | None, typer.Option("--crl", metavar="FILE", help="Where to write the list; crl.pem in DIR if not said.")
]
_SESSIONS_END = "Then the running enrolment server ends what sessions are open."


class ListNotWritten(BrokerError):
    """What was revoked is recorded, but the list that the broker reads does not say so yet."""


@ca_app.command(epilog="Example: acm ca init --dir /var/lib/acm/ca")
def init(
    directory: DirOption = None,
    name: Annotated[str, typer.Option("--name", help="Name in the authority's certificate.")] = "acm authority",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new authority in an empty directory, with an empty revocation list, and a key to sign commands with."""
    settings = load_config(config, {"ca": directory})
    create_authority(Path(settings.ca), name, datetime.now(UTC))
    create_signing_keys(signing_keys_path(settings), datetime.now(UTC))
    fingerprint = open_authority(settings).fingerprint
    if as_json:
        print_json({"directory": settings.ca, "fingerprint": fingerprint})
    else:
        typer.echo(f"The authority is in {settings.ca}; keep a copy of it in a safe place.\nFingerprint: {fingerprint}")
        typer.echo(f"Next: acm broker config --ca {settings.ca} --out DIR")


@ca_app.command(epilog="Example: acm ca server-certificate mqtt.example.org 192.0.2.7 --dir /var/lib/acm/ca")
def server_certificate(
    hosts: Annotated[list[str], typer.Argument(metavar="HOST...", help="Names and IP addresses of the server.")],
    directory: DirOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write server.crt and server.key; DIR of --dir."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and a certificate, for a year, for the broker or the enrolment server; they replace earlier ones."""
    settings = load_config(config, {"ca": directory})
    place = out or Path(settings.ca)
    until = open_authority(settings).write_server_certificate(hosts, place).not_valid_after_utc
    _tell_pair(place / SERVER_CERTIFICATE, place / SERVER_KEY, until, as_json)


@ca_app.command(epilog="Example: acm ca client-certificate --out /etc/acm --dir /var/lib/acm/ca")
def client_certificate(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write NAME.crt and NAME.key.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The server's client id; the configured client_id if not said.")
    ] = None,
    directory: DirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and a certificate, for a year, for the account of `acm server` at the broker.

    It cannot be revoked: agents get theirs by `acm token create`.
    """
    settings = load_config(config, {"ca": directory})
    account = name or settings.client_id
    until = open_authority(settings).write_client_certificate(account, out, account).not_valid_after_utc
    _tell_pair(out / f"{account}.crt", out / f"{account}.key", until, as_json)


@ca_app.command("list", epilog="Example: acm ca list --agent web-01 --json")
def list_enrolments(
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the enrolments, the newest first, each with its newest certificate."""
    with open_enrolments(load_config(config, {"ledger": ledger})) as enrolments:
        rows = enrolments.enrolments(agent)
    if as_json:
        print_json([_json(row) for row in rows])
    else:
        Console().print(_table(rows))


@ca_app.command(epilog="Example: acm ca revoke web-01 --reason key-compromise --dir /var/lib/acm/ca")
def revoke(
    target: Annotated[str, typer.Argument(metavar="AGENT|ENROLMENT_ID", help="All of an agent's, or one enrolment.")],
    reason: Annotated[
        RevocationReason, typer.Option("--reason", help="Goes into the revocation list.")
    ] = RevocationReason.UNSPECIFIED,
    directory: DirOption = None,
    crl: CrlOption = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke an enrolment with all its certificates, or an agent's with its unused tokens, and write the list."""
    settings = load_config(config, {"ca": directory, "crl": crl, "ledger": ledger})
    authority = open_authority(settings)
    with open_enrolments(settings) as enrolments:
        rows = enrolments.revoke(target, reason)
        file = open_revocation_file(settings, authority, enrolments)
        try:
            file.write()
        except BrokerError as error:
            raise ListNotWritten(
                f"Revoked, but the list was not written: {error} Repeat it by `acm ca crl`."
            ) from error
    if as_json:
        print_json([_json(row) for row in rows])
    else:
        typer.echo(f"Revoked enrolments: {len(rows)}. {_tell_broker(file.path)} {_SESSIONS_END}")


@ca_app.command(epilog="Example: acm ca crl --dir /var/lib/acm/ca --crl /etc/mosquitto/acm/crl.pem")
def crl(
    directory: DirOption = None,
    crl: CrlOption = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the revocation list anew, good for seven days. A running enrolment server does so every day."""
    settings = load_config(config, {"ca": directory, "crl": crl, "ledger": ledger})
    authority = open_authority(settings)
    with open_enrolments(settings) as enrolments:
        file = open_revocation_file(settings, authority, enrolments)
        until = file.write()
    if as_json:
        print_json({"crl": str(file.path), "next_update": iso(until)})
    else:
        typer.echo(f"The list is good until {until:%Y-%m-%d %H:%M} UTC. {_tell_broker(file.path)}")


def _tell_pair(certificate: Path, key: Path, until: datetime, as_json: bool) -> None:
    if as_json:
        print_json({"certificate": str(certificate), "key": str(key), "not_after": iso(until)})
    else:
        typer.echo(f"{certificate} and {key} are good until {until:%Y-%m-%d %H:%M} UTC.")


def _tell_broker(path: Path) -> str:
    return f"Mosquitto must read {path} again: at HUP; `acm broker run --dir` sees to that."


def _json(row: Enrolment) -> JsonObject:
    return {
        "id": row.id,
        "agent": row.agent,
        "enrolled_at": iso(row.enrolled_at),
        "serial": row.serial,
        "key": row.key,
        "not_after": iso(row.not_after),
        "revoked_at": iso(row.revoked_at),
        "reason": row.reason,
    }


def _table(rows: list[Enrolment]) -> Table:
    whole_id = Column("id", min_width=36)  # it is there to be copied
    table = Table(whole_id, "agent", "until (UTC)", "revoked", title=counted(len(rows), "enrolment"))
    for row in rows:
        words = (row.id, row.agent, f"{row.not_after:%Y-%m-%d %H:%M}", row.reason or "")
        table.add_row(*(literal(word) for word in words))
    return table
