"""acm token: one-time tokens that let an agent enroll."""

import secrets
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from broker.app.config import load_config
from broker.app.factories import open_authority, open_enrolments
from broker.cli.options import ConfigOption, JsonOption, LedgerOption
from broker.cli.output import iso, literal, print_json
from broker.contract.enrolment_token import EnrolmentToken
from broker.contract.messages import JsonObject
from broker.durations import parse_duration
from broker.enrolment.store import TokenRow
from broker.errors import InvalidArgument
from broker.text import counted

__all__ = [
    "token_app",
]


_SECRET_BYTES = 32
token_app = typer.Typer(no_args_is_help=True, help="One-time tokens that let an agent enroll.")


@token_app.command(epilog="Example: acm token create web-01 --ttl 1h --ca /var/lib/acm/ca")
def create(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    ttl: Annotated[str, typer.Option("--ttl", metavar="DURATION", help="How long it can be used: 1h.")] = "1h",
    ca: Annotated[str | None, typer.Option("--ca", metavar="DIR", help="The authority's directory.")] = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, this once: only its hash is kept. Whoever has it can enroll as this agent."""
    settings = load_config(config, {"ca": ca, "ledger": ledger})
    if agent == settings.client_id:
        raise InvalidArgument(f"{agent!r} is the server's own name on the broker: no agent may have it.")
    lifetime = timedelta(seconds=parse_duration(ttl))
    token = EnrolmentToken(secrets.token_urlsafe(_SECRET_BYTES), open_authority(settings).fingerprint)
    with open_enrolments(settings) as enrolments:
        row = enrolments.add_token(agent, token, lifetime)
    if as_json:
        print_json({**_json(row), "token": token.text})
    else:
        typer.echo(token.text)
        typer.echo(f"For {agent}, once, until {row.expires_at:%Y-%m-%d %H:%M:%S} UTC. It is not shown again.", err=True)
        words = f"--server https://HOST:PORT --token - --agent {agent} --state DIR"
        typer.echo(f"Next, on its machine: acm-agent enroll {words}", err=True)


@token_app.command("list", epilog="Example: acm token list --json")
def list_tokens(config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """List the tokens, the newest first, without their secrets."""
    with open_enrolments(load_config(config, {"ledger": ledger})) as enrolments:
        rows = enrolments.tokens()
    if as_json:
        print_json([_json(row) for row in rows])
    else:
        Console().print(_table(rows))


@token_app.command(epilog="Example: acm token revoke 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id.")],
    config: ConfigOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Take back a token that was not used."""
    with open_enrolments(load_config(config, {"ledger": ledger})) as enrolments:
        enrolments.revoke_token(token_id)
    typer.echo("The token is revoked.")


def _json(row: TokenRow) -> JsonObject:
    return {
        "id": row.id,
        "agent": row.agent,
        "state": row.state,
        "created_at": iso(row.created_at),
        "expires_at": iso(row.expires_at),
        "used_at": iso(row.used_at),
        "key": row.key,
        "enrolment_id": row.enrolment_id,
    }


def _table(rows: list[TokenRow]) -> Table:
    whole_id = Column("id", min_width=36)  # it is there to be copied
    table = Table(whole_id, "agent", "state", "expires (UTC)", title=counted(len(rows), "token"))
    for row in rows:
        words = (row.id, row.agent, row.state, f"{row.expires_at:%Y-%m-%d %H:%M}")
        table.add_row(*(literal(word) for word in words))
    return table
