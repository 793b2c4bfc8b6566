"""acm broker: Mosquitto as a child process, and the files of a secured one."""

import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from broker.app.broker_directory import BrokerDirectory, WrittenFiles, settings_for
from broker.app.setting_up import write_broker_directory
from broker.cli.session import CA, LEDGER, Session, with_session
from broker.console.output import minute, print_text
from broker.errors import InvalidArgument
from broker.mosquitto.process import EmbeddedMosquitto, MosquittoError, SecuredMosquitto
from broker.system.service_manager import ServiceManager
from broker.system.signals import Signals, on_signals
from broker.text import rfc3339

__all__ = [
    "app",
]


_POLL_INTERVAL_S = 0.2
_DEFAULT_PORT, _DEFAULT_TLS_PORT = 1883, 8883
app = typer.Typer(no_args_is_help=True)


@app.command("config", epilog="Example: acm broker config --out /var/lib/acm/broker --host mqtt.example.org")
@with_session(CA, LEDGER, uses_default=False)
def configure(
    session: Session,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to write.")],
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="HOST",
            help="Name or address at which agents reach the broker; may be repeated (default: localhost).",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port that the broker listens on.")
    ] = _DEFAULT_TLS_PORT,
) -> None:
    """Write the files of a secured Mosquitto, the server and the enrolment server.

    When run again, it issues new certificates for another year and keeps the configuration files. It then takes
    authority and ledger from the server.toml in DIR.
    """
    settings = settings_for(out, session.config_file, session.overrides)
    directory = BrokerDirectory(out, settings, hosts or [], port)
    written = write_broker_directory(directory, settings)
    document = {
        "settings": str(directory.settings),
        "not_after": rfc3339(written.until),
        "made": [str(path) for path in written.made],
        "kept": [str(path) for path in written.kept],
    }
    session.show(document, _sentences(directory, written))


@app.command("run", epilog="Example: acm broker run --dir /var/lib/acm/broker")
def run(
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Run what `acm broker config` has written to DIR.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help=f"Without --dir: port on 127.0.0.1 (default: {_DEFAULT_PORT})."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Without --dir: data directory (default: a temporary one)."),
    ] = None,
) -> None:
    """Run Mosquitto until TERM or INT. Without --dir it listens on 127.0.0.1, open to every user of this machine."""
    if directory is None:
        _run_unsecured(port or _DEFAULT_PORT, data)
    elif port is None and data is None:
        _run_secured(directory)
    else:
        raise InvalidArgument(
            "--port and --data cannot be used with --dir, whose mosquitto.conf sets both: leave them out.",
            code="conflicting_options",
        )


def _run_unsecured(port: int, data: Path | None) -> None:
    with on_signals() as signals, EmbeddedMosquitto(port, data, ends_with_parent=True) as mosquitto:
        print_text(f"Mosquitto listens at {mosquitto.url}", to_stderr=True)
        _supervise(mosquitto, signals, lambda: False, where=f"its log is {mosquitto.log_path}")


def _run_secured(directory: Path) -> None:
    with on_signals() as signals, SecuredMosquitto(directory, ends_with_parent=True) as mosquitto:
        print_text(f"Mosquitto listens at {mosquitto.address}", to_stderr=True)
        _supervise(mosquitto, signals, mosquitto.reload_when_changed, where="its log is above")


def _supervise(
    mosquitto: EmbeddedMosquitto | SecuredMosquitto, signals: Signals, reloaded: Callable[[], bool], *, where: str
) -> None:
    ended, reloading = threading.Event(), threading.Event()
    signals.deliver(ended.set, reloading.set)
    manager = ServiceManager(monotonic)
    while mosquitto.running and not ended.wait(_POLL_INTERVAL_S):
        manager.turn(ready=True, status="Mosquitto runs.")
        requested = reloading.is_set()
        reloading.clear()
        if requested:
            mosquitto.reload()
        if requested or reloaded():
            print_text("Mosquitto reloaded (SIGHUP).", to_stderr=True)
    manager.stopping()
    if not ended.is_set():
        raise MosquittoError(f"Mosquitto ended unexpectedly; {where}.")


def _sentences(directory: BrokerDirectory, written: WrittenFiles) -> str:
    place = directory.settings.parent
    lines = [f"The certificates in {place} are valid until {minute(written.until)} UTC."]
    if written.kept:
        names = ", ".join(path.name for path in written.kept)
        lines.append(f"Kept: {names}. Delete a file to have it regenerated.")
    lines.append(f"Next: export ACM_CONFIG={directory.settings} (or use --config each time),")
    lines.append(f"then acm broker run --dir {place}, acm server and acm enroll-server.")
    return "\n".join(lines)
