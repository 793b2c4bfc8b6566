"""acm token: one-time tokens for the enrolment of agents."""

import secrets
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from broker.app.config import DEFAULT_ENROLL_LISTEN
from broker.cli.output import id_column, minute, print_json, print_text, second, table
from broker.cli.session import CA, LEDGER, Session, with_session
from broker.contract.enrolment_token import EnrolmentToken
from broker.contract.messages import JsonObject
from broker.durations import parse_duration
from broker.enrolment.tokens import TokenRecord
from broker.errors import InvalidArgument
from broker.mqtt.address import host_in_url, parse_url
from broker.text import counted, rfc3339

__all__ = [
    "app",
]


_SECRET_BYTES = 32
_DEFAULT_TTL = "1h"
_MAX_TTL = timedelta(days=30)
app = typer.Typer(no_args_is_help=True)


@app.command(epilog="Example: acm token create web-01 --ttl 1h --ca /var/lib/acm/ca")
@with_session(CA, LEDGER, creates_ledger=True)
def create(
    session: Session,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of the agent.")],
    ttl: Annotated[str, typer.Option("--ttl", metavar="DURATION", help="Lifetime of the token.")] = _DEFAULT_TTL,
) -> None:
    """Create a token and print it.

    It is not shown again. Anyone who has it can enroll as this agent, once.
    """
    if agent == session.config.client_id:
        raise InvalidArgument(
            f"{agent!r} is the client id of the server: an agent needs another name.", code="name_of_server"
        )
    lifetime = timedelta(seconds=parse_duration(ttl))
    if lifetime > _MAX_TTL:
        raise InvalidArgument(
            f"--ttl: a token may be valid for at most {_MAX_TTL.days} days; create one when it is needed.",
            code="ttl_too_long",
        )
    token = EnrolmentToken(secrets.token_urlsafe(_SECRET_BYTES), session.authority.fingerprint)
    row = session.tokens.add(agent, token, lifetime)
    if session.as_json:
        print_json({**_json(row), "token": token.text})
        return
    print_text(token.text)
    print_text(f"Valid once, for {agent}, until {second(row.expires_at)} UTC. It is not shown again.", to_stderr=True)
    arguments = f"--server {_server(session)} --token - --agent {agent} --state DIR"
    print_text(f"Next, on the agent's machine: acm-agent enroll {arguments}", to_stderr=True)


@app.command("list", epilog="Example: acm token list --json")
@with_session(LEDGER, only_reads=True)
def list_tokens(session: Session) -> None:
    """List tokens, newest first, without their secrets."""
    rows = session.tokens.all()
    session.show([_json(row) for row in rows], _table(rows))


@app.command(epilog="Example: acm token revoke 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER, json=False)
def revoke(session: Session, token_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the token.")]) -> None:
    """Revoke a token that was not used."""
    session.tokens.revoke(token_id)
    print_text("The token is revoked.")


def _server(session: Session) -> str:
    """Return the URL of the enrolment server as far as the configuration has it."""
    config = session.config
    host = parse_url(config.enroll_broker).host if config.enroll_broker else "HOST"
    _, _, port = (config.enroll_listen or DEFAULT_ENROLL_LISTEN).rpartition(":")
    return f"https://{host_in_url(host)}:{port}"


def _json(row: TokenRecord) -> JsonObject:
    return {
        "id": row.id,
        "agent": row.agent,
        "state": row.state,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at),
        "used_at": rfc3339(row.used_at),
        "key": row.key,
        "enrolment_id": row.enrolment_id,
    }


def _table(rows: list[TokenRecord]) -> Table:
    columns = (id_column(), "agent", "state", "expires (UTC)")
    cells = ((row.id, row.agent, row.state, minute(row.expires_at)) for row in rows)
    return table(counted(len(rows), "token"), columns, cells)
