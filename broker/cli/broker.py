"""acm broker: Mosquitto as a child process, and the files of a secured one."""

import threading
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from broker.app.broker_directory import BrokerDirectory, Written, refuse_agents_name, settings_for
from broker.app.factories import open_authority, open_enrolments, open_revocation_file
from broker.cli.options import ConfigOption, JsonOption, LedgerOption
from broker.cli.output import iso, print_json
from broker.errors import BrokerError, InvalidArgument
from broker.mosquitto.process import EmbeddedMosquitto, SecuredMosquitto
from broker.system.signals import on_signals

__all__ = [
    "broker_app",
]


_POLL_S = 0.2
broker_app = typer.Typer(no_args_is_help=True, help="The MQTT broker: run Mosquitto, write a secured one's files.")


@broker_app.command("config", epilog="Example: acm broker config --out /var/lib/acm/broker --host mqtt.example.org")
def configure(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The directory to write.")],
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="Name or address at which agents reach the broker; none: this machine alone."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where the broker listens.")] = 8883,
    ca: Annotated[str | None, typer.Option("--ca", metavar="DIR", help="The authority's directory.")] = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all that a secured Mosquitto, the server and the enrolment server need.

    Run again, it makes new certificates and keys for another year and leaves the configuration files alone; then its
    own server.toml says which authority and ledger they are of.
    """
    settings = settings_for(out, config, {"ca": ca, "ledger": ledger})
    authority = open_authority(settings)
    directory = BrokerDirectory(out, settings, hosts or [], port)
    listing = msgspec.structs.replace(settings, crl=str(directory.revocation_list))
    with open_enrolments(settings) as enrolments:
        refuse_agents_name(settings.client_id, enrolments)
        written = directory.write(authority)
        open_revocation_file(listing, authority, enrolments).write()
    if as_json:
        files = {"made": [str(path) for path in written.made], "kept": [str(path) for path in written.kept]}
        print_json({"settings": str(directory.settings), "not_after": iso(written.until), **files})
    else:
        typer.echo(_sentences(directory, written))


@broker_app.command("run", epilog="Example: acm broker run --dir /var/lib/acm/broker")
def run(
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Run what `acm broker config` has written there.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1, without --dir; 1883.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Directory for its data; without it (or --dir) they end with the broker."),
    ] = None,
) -> None:
    """Run Mosquitto until told to end (TERM or INT); without --dir on 127.0.0.1 and open to all on this machine."""
    if directory is None:
        _run_open(port or 1883, data)
    elif port is None and data is None:
        _run_secured(directory)
    else:
        raise InvalidArgument("--dir says port and data by its mosquitto.conf: leave out --port and --data.")


def _run_open(port: int, data: Path | None) -> None:
    ended = threading.Event()
    with on_signals(ended.set), EmbeddedMosquitto(port, data) as mosquitto:
        typer.echo(f"Mosquitto listens at {mosquitto.url}")
        while mosquitto.running and not ended.wait(_POLL_S):
            pass
        if not ended.is_set():
            raise BrokerError(f"Mosquitto ended by itself; its log is {mosquitto.log_path}.")


def _run_secured(directory: Path) -> None:
    ended = threading.Event()
    with on_signals(ended.set), SecuredMosquitto(directory) as mosquitto:
        typer.echo(f"Mosquitto listens at {mosquitto.address}")
        while mosquitto.running and not ended.wait(_POLL_S):
            if mosquitto.reload_when_changed():
                typer.echo("Mosquitto reads its files again")
        if not ended.is_set():
            raise BrokerError("Mosquitto ended by itself; its words are above.")


def _sentences(directory: BrokerDirectory, written: Written) -> str:
    place = directory.settings.parent
    lines = [f"The certificates in {place} are good until {written.until:%Y-%m-%d %H:%M} UTC."]
    if written.kept:
        names = ", ".join(path.name for path in written.kept)
        lines.append(f"Left as they were: {names}. Remove a file first to have it written anew.")
    lines.append(f"Next: export ACM_CONFIG={directory.settings} (or say --config each time),")
    lines.append(f"then acm broker run --dir {place}, acm server and acm enroll-server.")
    return "\n".join(lines)
