"""acm token: one-time tokens for the enrolment of agents."""

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.documents import document_of
from broker.cli.session import CA, LEDGER, Session, with_session
from broker.console.listing import Column, Listing, Shown, time_column
from broker.console.output import print_text, second
from broker.durations import parse_duration
from broker.errors import InvalidArgument
from broker.fleet.enrolment_models import MAX_ENROLMENT_TOKEN_S, EnrolmentTokenView
from broker.fleet.pages import read_pages
from broker.suggestions import only_beginning_with

if TYPE_CHECKING:
    from broker.fleet.enrolment_port import Enrolments

__all__ = [
    "all_tokens",
    "app",
]


_DEFAULT_TTL = "1h"
app = typer.Typer(no_args_is_help=True)


_TOKENS = Listing[EnrolmentTokenView](
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
    document=document_of,
)


@app.command(epilog="Example: acm token create web-01 --ttl 1h --ca /var/lib/acm/ca")
@with_session(CA, LEDGER, over_api=True, creates_ledger=True)
def create(
    session: Session,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of the agent.")],
    ttl: Annotated[str, typer.Option("--ttl", metavar="DURATION", help="Lifetime of the token.")] = _DEFAULT_TTL,
) -> None:
    """Create a token and print it.

    It is not shown again. Anyone who has it can enroll as this agent, once.
    """
    ttl_s = parse_duration(ttl)
    if ttl_s > MAX_ENROLMENT_TOKEN_S:
        raise InvalidArgument(
            f"--ttl: a token may be valid for at most {MAX_ENROLMENT_TOKEN_S / 86400:g} days; create one when it is "
            "needed.",
            code="ttl_too_long",
        )
    made = session.enrolments.create_enrolment_token(agent, ttl_s=ttl_s)
    if session.printer.for_programs:
        session.show(document_of(made), "")
        return
    print_text(made.token)
    print_text(f"Valid once, for {agent}, until {second(made.expires_at)} UTC. It is not shown again.", to_stderr=True)
    arguments = f"--server {made.server} --token - --agent {agent} --state DIR"
    print_text(f"Next, on the agent's machine: acm-agent enroll {arguments}", to_stderr=True)


@app.command("list", epilog="Example: acm token list --json")
@with_session(LEDGER, over_api=True, lists=_TOKENS, only_reads=True)
def list_tokens(session: Session) -> None:
    """List tokens, newest first, without their secrets."""
    enrolments = session.enrolments
    session.show_list(_TOKENS, lambda: all_tokens(enrolments))


@app.command(epilog="Example: acm token revoke 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER, over_api=True)
def revoke(
    session: Session,
    given_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the token, or the beginning of it.")],
) -> None:
    """Revoke a token that was not used."""
    enrolments = session.enrolments
    token_id = only_beginning_with(given_id, (it.id for it in all_tokens(enrolments))) or given_id
    revoked = enrolments.revoke_enrolment_token(token_id)
    session.show(document_of(revoked), f"The token for {revoked.agent} is revoked.")


def all_tokens(enrolments: "Enrolments") -> list[EnrolmentTokenView]:
    """Return every enrolment token, newest first."""
    return read_pages(lambda cursor, count: enrolments.enrolment_tokens(cursor=cursor, limit=count))
