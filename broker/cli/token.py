"""acm token: one-time tokens for the enrolment of agents."""

from datetime import timedelta
from typing import Annotated

import typer

from broker.app.config import enrolment_url
from broker.cli.session import CA, LEDGER, Session, with_session
from broker.console.listing import Column, Listing, Shown, time_column
from broker.console.output import print_text, second
from broker.contract.messages import JsonObject
from broker.durations import parse_duration
from broker.enrolment.tokens import TokenRecord, new_enrolment_token
from broker.errors import InvalidArgument
from broker.fleet.enrolment_models import MAX_ENROLMENT_TOKEN_S
from broker.fleet.enrolments_on_ledger import refuse_name_of_server
from broker.suggestions import only_beginning_with
from broker.text import rfc3339

__all__ = [
    "app",
]


_DEFAULT_TTL = "1h"
_MAX_TTL = timedelta(seconds=MAX_ENROLMENT_TOKEN_S)
app = typer.Typer(no_args_is_help=True)


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


_TOKENS = Listing[TokenRecord](
    "token",
    (
        Column("id", lambda it: it.id),
        Column("agent", lambda it: it.agent),
        Column("state", lambda it: it.state),
        time_column("expires", lambda it: it.expires_at),
        time_column("created", lambda it: it.created_at, Shown.WIDE),
        time_column("used", lambda it: it.used_at, Shown.WIDE),
        Column("enrolment", lambda it: it.enrolment_id, Shown.WIDE),
    ),
    name=lambda it: it.id,
    document=_json,
)


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
    refuse_name_of_server(agent, session.config.client_id)
    lifetime = timedelta(seconds=parse_duration(ttl))
    if lifetime > _MAX_TTL:
        raise InvalidArgument(
            f"--ttl: a token may be valid for at most {_MAX_TTL.days} days; create one when it is needed.",
            code="ttl_too_long",
        )
    token = new_enrolment_token(session.authority.fingerprint)
    row = session.tokens.add(agent, token, lifetime)
    if session.printer.for_programs:
        session.show({**_json(row), "token": token.text}, "")
        return
    print_text(token.text)
    print_text(f"Valid once, for {agent}, until {second(row.expires_at)} UTC. It is not shown again.", to_stderr=True)
    arguments = f"--server {enrolment_url(session.config)} --token - --agent {agent} --state DIR"
    print_text(f"Next, on the agent's machine: acm-agent enroll {arguments}", to_stderr=True)


@app.command("list", epilog="Example: acm token list --json")
@with_session(LEDGER, lists=_TOKENS, only_reads=True)
def list_tokens(session: Session) -> None:
    """List tokens, newest first, without their secrets."""
    session.show_list(_TOKENS, session.tokens.all)


@app.command(epilog="Example: acm token revoke 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER)
def revoke(
    session: Session,
    given_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the token, or the beginning of it.")],
) -> None:
    """Revoke a token that was not used."""
    token_id = only_beginning_with(given_id, (row.id for row in session.tokens.all())) or given_id
    row = session.tokens.revoke(token_id)
    session.show(_json(row), f"The token for {row.agent} is revoked.")
