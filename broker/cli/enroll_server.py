"""acm enroll-server: the HTTPS server that agents enroll at."""

from typing import Annotated

import typer

from broker.app.config import SECRET_VARIABLES, load_config
from broker.cli.options import ConfigOption, LedgerOption
from broker.system.logging import configure_logs
from broker.system.process import forbid_dumps, take_out
from broker.system.signals import on_signals

__all__ = [
    "enroll_app",
]


enroll_app = typer.Typer()


@enroll_app.command(
    epilog="Example: acm enroll-server --ca /var/lib/acm/ca --listen 0.0.0.0:8443 --broker mqtts://mqtt.example.org"
)
def enroll_server(
    ca: Annotated[str | None, typer.Option("--ca", metavar="DIR", help="The authority's directory.")] = None,
    listen: Annotated[str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen.")] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="The broker's URL that agents are told.")] = None,
    certificate: Annotated[
        str | None, typer.Option("--certificate", metavar="FILE", help="The server's; server.crt in DIR if not said.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="FILE", help="Its key; server.key in DIR if not said.")
    ] = None,
    lifetime: Annotated[
        str | None, typer.Option("--lifetime", metavar="DURATION", help="Of agents' certificates; 30d if not said.")
    ] = None,
    crl: Annotated[
        str | None, typer.Option("--crl", metavar="FILE", help="Where to write the revocation list, every day.")
    ] = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Run the enrolment server until it is told to end (TERM or INT)."""
    flags = {
        "ca": ca,
        "crl": crl,
        "ledger": ledger,
        "enroll_listen": listen,
        "enroll_broker": broker,
        "enroll_certificate": certificate,
        "enroll_key": key,
        "certificate_lifetime": lifetime,
    }
    settings = load_config(config, flags)
    configure_logs(settings.log_level)
    forbid_dumps()
    take_out(SECRET_VARIABLES)
    # Imported here: no other command should wait for the HTTP server's modules.
    from broker.app.enrolment_server import EnrolmentServer

    server = EnrolmentServer(settings)
    with on_signals(server.stop):
        server.run()
