"""acm api token: the access tokens of operators, by which the API knows them."""

from typing import TYPE_CHECKING, Annotated

import typer

from broker.access.models import AccessTokenView
from broker.cli.documents import document_of
from broker.cli.grants import DEFAULT_TTL, GroupOption, RoleOption, TtlOption, grant_id, list_of_grants
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Listing
from broker.console.output import print_text, second
from broker.durations import parse_duration
from broker.fleet.pages import read_pages

if TYPE_CHECKING:
    from broker.access.port import AccessTokens

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)
_TOKENS: Listing[AccessTokenView] = list_of_grants("access token")


@app.command(epilog="Example: acm api token create alice --role operator --group edge --ttl 30d")
@with_session(LEDGER, over_api=True, creates_ledger=True)
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the person or program: the origin of commands.")],
    role: RoleOption,
    group: GroupOption = None,
    ttl: TtlOption = DEFAULT_TTL,
) -> None:
    """Create an access token and print it. It is not shown again."""
    made = session.access_tokens.create_access_token(name, role.value, groups=group or None, ttl_s=parse_duration(ttl))
    if session.printer.for_programs:
        session.show(document_of(made), "")
        return
    print_text(made.token)
    print_text(f"For {name}, as {role}, until {second(made.expires_at)} UTC. It is not shown again.", to_stderr=True)


@app.command("list", epilog="Example: acm api token list --json")
@with_session(LEDGER, over_api=True, lists=_TOKENS, only_reads=True)
def list_access_tokens(session: Session) -> None:
    """List access tokens, newest first, without their secrets."""
    tokens = session.access_tokens
    session.show_list(_TOKENS, lambda: _all(tokens))


@app.command(epilog="Example: acm api token revoke 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER, over_api=True)
def revoke(
    session: Session,
    given_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the token, or the beginning of it.")],
) -> None:
    """Revoke an access token. What its bearer has sent stays."""
    tokens = session.access_tokens
    revoked = tokens.revoke_access_token(grant_id(given_id, _all(tokens)))
    session.show(document_of(revoked), f"The access token of {revoked.principal} is revoked.")


def _all(tokens: "AccessTokens") -> list[AccessTokenView]:
    return read_pages(lambda cursor, count: tokens.access_tokens(cursor=cursor, limit=count))
