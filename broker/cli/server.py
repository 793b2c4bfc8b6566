"""acm server: the process between the ledger and the agents."""

from time import monotonic

import typer

from broker.app.config import SECRET_VARIABLES, load_config
from broker.cli.session import LEDGER, ConfigOverride, Session, with_session
from broker.system.lean_log import load_structlog_without_rich
from broker.system.process import forbid_dumps, remove_variables
from broker.system.service_manager import ServiceManager
from broker.system.signals import on_signals

__all__ = [
    "app",
]


app = typer.Typer()
BROKER = ConfigOverride(
    "broker",
    typer.Option(
        "--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT (default: mqtt://127.0.0.1:1883)."
    ),
)


@app.command(epilog="Example: acm server --broker mqtt://127.0.0.1:1883 --ledger sqlite:////var/lib/acm/ledger.db")
@with_session(BROKER, LEDGER, prints=False, uses_default=False)
def server(session: Session) -> None:
    """Run the server until TERM or INT: send the commands in the ledger and store the results.

    It also serves the HTTP API, at `api_listen` in the configuration (default: 127.0.0.1:8444), unless that is `off` or
    in use. HUP makes it read its certificates and `log_level` again, and connect again.
    """
    load_structlog_without_rich()
    from broker.app.hosted_api import hosted_api
    from broker.app.server import ServerProcess
    from broker.system.logging import configure_logs, reload_log_level

    with on_signals() as signals:
        configure_logs(session.config.log_level)
        forbid_dumps()
        remove_variables(SECRET_VARIABLES)
        process = ServerProcess(session.config, ServiceManager(monotonic))
        with hosted_api(session.config) as api:

            def reload() -> None:
                reload_log_level(lambda: load_config(session.config_file, session.overrides).log_level)
                process.reload()
                if api is not None:
                    api.reload()

            signals.deliver(process.stop, reload)
            process.run()
