"""acm server: the process between the ledger and the agents."""

from time import monotonic

import typer

from broker.app.config import SECRET_VARIABLES, load_config
from broker.app.server import ServerProcess
from broker.cli.session import LEDGER, ConfigOverride, Session, with_session
from broker.system.logging import configure_logs, reload_log_level
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
@with_session(BROKER, LEDGER, json=False)
def server(session: Session) -> None:
    """Run the server until TERM or INT: send the commands in the ledger and store the results.

    HUP makes it read its certificate and `log_level` again, and connect again.
    """
    with on_signals() as signals:
        configure_logs(session.config.log_level)
        forbid_dumps()
        remove_variables(SECRET_VARIABLES)
        process = ServerProcess(session.config, ServiceManager(monotonic))

        def reload() -> None:
            reload_log_level(lambda: load_config(session.config_file, session.overrides).log_level)
            process.reload()

        signals.deliver(process.stop, reload)
        process.run()
