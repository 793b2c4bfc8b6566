"""acm: sends commands, shows what became of them, and runs the server."""

import contextlib
import getpass
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import structlog
import typer
from rich.console import Console

from broker.arguments import InvalidArgument, parse_duration, read_parameters, with_default_wait
from broker.config import ConfigurationError, load_config
from broker.contract.messages import Origin
from broker.contract.states import Outcome
from broker.contract.topics import InvalidName, check_agent_name
from broker.errors import BrokerError
from broker.exit_codes import ExitCode
from broker.ledger import CommandState, Ledger, LedgerRow
from broker.mosquitto import EmbeddedMosquitto
from broker.package_cli import app as package_app
from broker.server_process import ServerProcess, open_ledger
from broker.views import agent_json, agents_table, command_json, command_panel, commands_table

__all__ = ["app", "main"]

_POLL_S = 0.05

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Command a fleet of agents, and know what became of it."
)
broker_app = typer.Typer(no_args_is_help=True, help="The embedded MQTT broker.")
app.add_typer(broker_app, name="broker")
app.add_typer(package_app, name="package")

ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML configuration file.")]
LedgerOption = Annotated[
    str | None, typer.Option("--ledger", help="Database URL, for example sqlite:////var/lib/acm/ledger.db.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
CommandId = Annotated[str, typer.Argument(metavar="ID", help="The command's id.")]


class UnknownAgent(BrokerError):
    """No agent of this name was ever seen."""


class CommandFailed(BrokerError):
    """The command that was waited for was completed with the outcome error."""


class WaitTimeout(BrokerError):
    """The result did not come in the time that the user gave."""


@app.command(epilog="Example: acm server --broker mqtt://127.0.0.1:1883 --ledger sqlite:////var/lib/acm/ledger.db")
def server(
    config: ConfigOption = None,
    broker: Annotated[str | None, typer.Option("--broker", help="mqtt://HOST:PORT")] = None,
    ledger: LedgerOption = None,
) -> None:
    """Run the server until it is told to end (TERM or INT): it sends what is in the ledger and keeps the results."""
    settings = load_config(config, {"broker": broker, "ledger": ledger})
    _configure_logs(settings.log_level)
    process = ServerProcess(settings)
    with _on_signals(process.stop):
        process.run()


@app.command(
    epilog="Examples: acm send web-01 restart-agent --wait | "
    "acm send web-01 get-agent-configuration section=service --expires-in 10m --json"
)
def send(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    command_type: Annotated[str, typer.Argument(metavar="TYPE", help="The command type.")],
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Parameters; a value that is JSON is taken as such."),
    ] = None,
    parameters: Annotated[
        str | None, typer.Option("--parameters", metavar="JSON|@FILE", help="All parameters as a JSON object.")
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="DURATION", help="Do not begin it later than this: 10m.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="DURATION", help="How long it may run: 30s.")
    ] = None,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="[SECONDS]", help="Wait for the result, 60 seconds if not said.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Also send to an agent that was never seen.")
    ] = False,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a command into the ledger; the running server sends it. With --wait the outcome is the exit code."""
    given = read_parameters(pairs or [], parameters)
    expires_in_s, timeout_s, wait_s = (text and parse_duration(text) for text in (expires_in, timeout, wait))
    with _ledger(config, ledger) as opened:
        if not allow_unknown:
            _check_known(opened, agent)
        command = opened.add_command(
            agent, command_type, given, _origin(), expires_in_s=expires_in_s or None, timeout_s=timeout_s or None
        )
        row = opened.get(command.id)
        if wait_s:
            row = _wait(opened, row, wait_s, quiet=as_json)
    if as_json:
        _print_json(command_json(row))
    elif wait_s:
        Console().print(command_panel(row))
    else:
        typer.echo(row.command.id)
    if wait_s:
        _judge(row, wait_s)


@app.command(epilog="Example: acm commands --agent web-01 --state completed --json")
def commands(
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    state: Annotated[CommandState | None, typer.Option("--state", help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many, the newest.")] = 100,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the commands, the newest first."""
    with _ledger(config, ledger) as opened:
        rows = opened.commands(agent, state, limit)
    if as_json:
        _print_json([command_json(row) for row in rows])
    else:
        Console().print(commands_table(rows))


@app.command(epilog="Example: acm show 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f --json")
def show(
    command_id: CommandId, config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False
) -> None:
    """Show one command, its state and its result."""
    with _ledger(config, ledger) as opened:
        _print_command(opened.get(command_id), as_json)


@app.command(epilog="Example: acm cancel 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
def cancel(
    command_id: CommandId, config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False
) -> None:
    """Ask for a command to be cancelled, whether it waits or runs; its result says what came of that."""
    with _ledger(config, ledger) as opened:
        _print_command(opened.request_cancel(command_id), as_json)


@app.command(epilog="Example: acm agents --json")
def agents(config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """List the agents with the last status that each has published."""
    with _ledger(config, ledger) as opened:
        rows = opened.agents()
    if as_json:
        _print_json([agent_json(row) for row in rows])
    else:
        Console().print(agents_table(rows))


@broker_app.command("run", epilog="Example: acm broker run --port 1883 --data /var/lib/acm/broker")
def run_broker(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")] = 1883,
    data: Annotated[
        Path | None, typer.Option("--data", help="Directory for its data; without it they end with the broker.")
    ] = None,
) -> None:
    """Run Mosquitto on 127.0.0.1 until told to end (TERM or INT)."""
    ended = threading.Event()
    with _on_signals(ended.set), EmbeddedMosquitto(port, data) as mosquitto:
        typer.echo(f"Mosquitto listens at {mosquitto.url}")
        while mosquitto.running and not ended.wait(0.2):
            pass
        if not ended.is_set():
            raise BrokerError(f"Mosquitto ended by itself; its log is {mosquitto.log_path}.")


def _wait(ledger: Ledger, row: LedgerRow, wait_s: float, *, quiet: bool) -> LedgerRow:
    """Follow the command until it is completed or the time is over, with a live line of its state for people."""
    end = monotonic() + wait_s
    pause = threading.Event()
    with _live_line(quiet) as tell:
        while row.state is not CommandState.COMPLETED and monotonic() < end:
            tell(f"{row.command.type} on {row.agent}: {row.state}")
            pause.wait(_POLL_S)
            row = ledger.get(row.command.id)
    return row


@contextlib.contextmanager
def _live_line(quiet: bool) -> Iterator[Callable[[str], None]]:
    if quiet:
        yield lambda line: None
        return
    with Console(stderr=True).status("") as line:
        yield line.update


def _judge(row: LedgerRow, wait_s: float) -> None:
    if row.result is None:
        raise WaitTimeout(
            f"No result after {wait_s:g} s: the command is {row.state}. It stays so until it is completed; "
            f"look with `acm show {row.command.id}`."
        )
    if row.result["outcome"] != Outcome.SUCCESS:
        raise CommandFailed(f"{row.command.type} on {row.agent} ended in an error ({row.result.get('code')}).")


def _check_known(ledger: Ledger, agent: str) -> None:
    check_agent_name(agent)
    known = [row.name for row in ledger.agents()]
    if agent not in known:
        raise UnknownAgent(
            f"No agent {agent!r} was ever seen; `acm agents` lists them, --allow-unknown sends all the same."
        )


def _origin() -> Origin:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Origin(name=f"{user}@{socket.gethostname()}", module="acm")


@contextlib.contextmanager
def _ledger(config: Path | None, url: str | None) -> Iterator[Ledger]:
    ledger = open_ledger(load_config(config, {"ledger": url}).ledger)
    try:
        yield ledger
    finally:
        ledger.close()


def _print_command(row: LedgerRow, as_json: bool) -> None:
    if as_json:
        _print_json(command_json(row))
    else:
        Console().print(command_panel(row))


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document))


def _configure_logs(level: str) -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextlib.contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_EXIT_CODES: dict[type[BrokerError], ExitCode] = {
    InvalidArgument: ExitCode.USAGE,
    InvalidName: ExitCode.USAGE,
    ConfigurationError: ExitCode.CONFIGURATION,
    CommandFailed: ExitCode.COMMAND_ERROR,
    WaitTimeout: ExitCode.WAIT_TIMEOUT,
    UnknownAgent: ExitCode.UNKNOWN_AGENT,
}


def main() -> None:
    """Run acm; every error of ours becomes one sentence on stderr and a named exit code."""
    try:
        app(args=with_default_wait(sys.argv[1:]))
    except BrokerError as error:
        typer.echo(f"acm: {error}", err=True)
        sys.exit(_EXIT_CODES.get(type(error), ExitCode.FAILURE))
