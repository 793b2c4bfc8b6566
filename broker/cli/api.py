"""acm api: the HTTP API, and the access tokens and certificates of its users."""

from time import monotonic
from typing import TYPE_CHECKING

import typer

from broker.app.config import SECRET_VARIABLES, ServerConfigurationError, load_config
from broker.cli import access_tokens, operator_certificates
from broker.cli.session import LEDGER, ConfigOverride, Session, with_session

if TYPE_CHECKING:
    from broker.app.api_server import ApiServer

__all__ = [
    "app",
]


app = typer.Typer(invoke_without_command=True)
app.add_typer(access_tokens.app, name="token", help="Manage access tokens of the API's users.")
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
