"""acm api: the HTTP API, and the access tokens and certificates of its users."""

from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from broker.access.models import AccessTokenView
from broker.app.config import SECRET_VARIABLES, ServerConfigurationError, load_config
from broker.cli import operator_certificates
from broker.cli.documents import document_of
from broker.cli.grants import list_of_grants
from broker.cli.session import LEDGER, ConfigOverride, Session, with_session
from broker.console.listing import Listing
from broker.console.output import print_text, second
from broker.durations import parse_duration
from broker.fleet.models import Role
from broker.fleet.pages import read_pages
from broker.suggestions import only_beginning_with

if TYPE_CHECKING:
    from broker.access.port import AccessTokens
    from broker.app.api_server import ApiServer

__all__ = [
    "app",
]


_DEFAULT_TTL = "90d"
app = typer.Typer(invoke_without_command=True)
token = typer.Typer(no_args_is_help=True, help="Manage access tokens of the API's users.")
app.add_typer(token, name="token")
app.add_typer(operator_certificates.app, name="certificate", help="Manage certificates of the API's users.")
LISTEN = ConfigOverride(
    "api_listen",
    typer.Option(
        "--listen",
        metavar="HOST:PORT",
        help="Address to listen on; without a certificate, one of this machine alone (default: 127.0.0.1:8444).",
    ),
)
CERTIFICATE = ConfigOverride(
    "api_certificate",
    typer.Option("--certificate", metavar="FILE", help="TLS certificate of the API (default: none, and no TLS)."),
)
KEY = ConfigOverride("api_key", typer.Option("--key", metavar="FILE", help="Private key of the certificate."))


_TOKENS: Listing[AccessTokenView] = list_of_grants("access token", lambda it: it, document_of)


@app.callback(epilog="Example: acm api --ledger sqlite:////var/lib/acm/ledger.db")
@with_session(LISTEN, CERTIFICATE, KEY, LEDGER, prints=False, is_group=True)
def api(session: Session) -> None:
    """Run the HTTP API, and manage the access tokens and certificates of its users.

    It serves until TERM or INT. HUP makes it read its certificate and `log_level` again.
    """
    server_class = _server_class()
    from broker.doctor.server_checks import server_checks
    from broker.system.logging import configure_logs, reload_log_level
    from broker.system.process import forbid_dumps, remove_variables
    from broker.system.service_manager import ServiceManager
    from broker.system.signals import on_signals

    with on_signals() as signals:
        configure_logs(session.config.log_level)
        forbid_dumps()
        remove_variables(SECRET_VARIABLES)
        server = server_class(session.config, ServiceManager(monotonic), checks=server_checks)

        def reload() -> None:
            reload_log_level(lambda: load_config(session.config_file, session.overrides).log_level)
            server.reload()

        signals.deliver(server.stop, reload)
        server.run()


@token.command(epilog="Example: acm api token create alice --role operator --group edge --ttl 30d")
@with_session(LEDGER, over_api=True, creates_ledger=True)
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the person or program: the origin of commands.")],
    role: Annotated[Role, typer.Option("--role", help="What it may do; each role may do what those before it may.")],
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="GROUP", help="Only for the agents of this group; several times for more."),
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", metavar="DURATION", help="Lifetime of the token.")] = _DEFAULT_TTL,
) -> None:
    """Create an access token and print it. It is not shown again."""
    made = session.access_tokens.create_access_token(name, role.value, groups=group or None, ttl_s=parse_duration(ttl))
    if session.printer.for_programs:
        session.show(document_of(made), "")
        return
    print_text(made.token)
    print_text(f"For {name}, as {role}, until {second(made.expires_at)} UTC. It is not shown again.", to_stderr=True)


@token.command("list", epilog="Example: acm api token list --json")
@with_session(LEDGER, over_api=True, lists=_TOKENS, only_reads=True)
def list_access_tokens(session: Session) -> None:
    """List access tokens, newest first, without their secrets."""
    tokens = session.access_tokens
    session.show_list(_TOKENS, lambda: _all(tokens))


@token.command(epilog="Example: acm api token revoke 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER, over_api=True)
def revoke(
    session: Session,
    given_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the token, or the beginning of it.")],
) -> None:
    """Revoke an access token. What its bearer has sent stays."""
    tokens = session.access_tokens
    token_id = only_beginning_with(given_id, (it.id for it in _all(tokens))) or given_id
    revoked = tokens.revoke_access_token(token_id)
    session.show(document_of(revoked), f"The access token of {revoked.principal} is revoked.")


def _all(tokens: "AccessTokens") -> list[AccessTokenView]:
    return read_pages(lambda cursor, count: tokens.access_tokens(cursor=cursor, limit=count))


def _server_class() -> "type[ApiServer]":
    """Import the server; an installation without FastAPI has none. Raises ServerConfigurationError."""
    try:
        from broker.app.api_server import ApiServer
    except ModuleNotFoundError as error:
        if error.name != "fastapi":
            raise
        raise ServerConfigurationError(
            "acm api needs FastAPI: `make install EXTRA=api` installs it.", code="fastapi_missing"
        ) from error
    return ApiServer
