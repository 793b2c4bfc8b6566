"""acm enroll-server: the HTTPS server that agents enroll at."""

from time import monotonic

import typer

from broker.app.config import SECRET_VARIABLES, load_config
from broker.app.enrolment_server import EnrolmentServer
from broker.cli.session import CA, CRL, LEDGER, ConfigOverride, Session, with_session
from broker.system.logging import configure_logs, reload_log_level
from broker.system.process import forbid_dumps, remove_variables
from broker.system.service_manager import ServiceManager
from broker.system.signals import on_signals

__all__ = [
    "app",
]


app = typer.Typer()
LISTEN = ConfigOverride(
    "enroll_listen",
    typer.Option("--listen", metavar="HOST:PORT", help="Address to listen on (default: 127.0.0.1:8443)."),
)
BROKER = ConfigOverride(
    "enroll_broker", typer.Option("--broker", metavar="URL", help="URL of the MQTT broker that agents are given.")
)
CERTIFICATE = ConfigOverride(
    "enroll_certificate",
    typer.Option(
        "--certificate", metavar="FILE", help="TLS certificate of the enrolment server (default: server.crt in --ca)."
    ),
)
KEY = ConfigOverride(
    "enroll_key",
    typer.Option("--key", metavar="FILE", help="Private key of the certificate (default: server.key in --ca)."),
)
LIFETIME = ConfigOverride(
    "certificate_lifetime",
    typer.Option("--lifetime", metavar="DURATION", help="Lifetime of agents' certificates (default: 30d)."),
)


@app.command(
    epilog="Example: acm enroll-server --ca /var/lib/acm/ca --listen 0.0.0.0:8443 --broker mqtts://mqtt.example.org"
)
@with_session(CA, LISTEN, BROKER, CERTIFICATE, KEY, LIFETIME, CRL, LEDGER, prints=False, uses_default=False)
def enroll_server(session: Session) -> None:
    """Run the enrolment server until TERM or INT. It also renews the revocation list every day.

    HUP makes it read its certificate and `log_level` again.
    """
    with on_signals() as signals:
        configure_logs(session.config.log_level)
        forbid_dumps()
        remove_variables(SECRET_VARIABLES)
        server = EnrolmentServer(session.config, service_manager=ServiceManager(monotonic))

        def reload() -> None:
            reload_log_level(lambda: load_config(session.config_file, session.overrides).log_level)
            server.reload()

        signals.deliver(server.stop, reload)
        server.run()
