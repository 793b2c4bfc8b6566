"""acm: sends commands, shows what became of them, and runs the server."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from broker.app.config import SECRET_VARIABLES, ConfigurationError, load_config
from broker.app.server import ServerProcess
from broker.cli.arguments import with_default_wait
from broker.cli.audit import AuditDiffers, audit_app
from broker.cli.blob import blob_app
from broker.cli.broker import broker_app
from broker.cli.ca import ca_app
from broker.cli.enroll_server import enroll_app
from broker.cli.exit_codes import ExitCode
from broker.cli.group import group_app
from broker.cli.keys import keys_app
from broker.cli.operation import operation_app
from broker.cli.options import AbandonOption, ConfigOption, JsonOption, LedgerOption, open_ledger_of
from broker.cli.output import print_json, say
from broker.cli.package import app as package_app
from broker.cli.send import SEND_EXAMPLES, send
from broker.cli.targets import UnknownAgent, check_known
from broker.cli.token import token_app
from broker.cli.types import types
from broker.cli.views import (
    active_responses_table,
    agent_json,
    agents_table,
    command_json,
    command_panel,
    commands_table,
    pending_reversals,
)
from broker.contract.codec import to_json
from broker.contract.commands import InvalidParameters
from broker.contract.topics import InvalidName
from broker.errors import BrokerError, ExposedFileError, InvalidArgument
from broker.ledger.commands import LedgerRow
from broker.ledger.tables import CommandState
from broker.ledger.waiting import CommandFailed, WaitTimeout
from broker.system.logging import configure_logs
from broker.system.process import forbid_dumps, take_out
from broker.system.signals import on_signals

__all__ = [
    "app",
    "main",
]


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Command a fleet of agents, and know what became of it.",
)
app.add_typer(broker_app, name="broker")
app.command(epilog=SEND_EXAMPLES)(send)
app.add_typer(group_app, name="group")
app.add_typer(operation_app, name="operation")
app.command(epilog="Example: acm types --json")(types)
app.add_typer(audit_app, name="audit")
app.add_typer(ca_app, name="ca")
app.add_typer(token_app, name="token")
app.add_typer(keys_app, name="keys")
app.add_typer(enroll_app)
app.add_typer(blob_app, name="blob")
app.add_typer(package_app, name="package")
CommandId = Annotated[str, typer.Argument(metavar="ID", help="The command's id.")]


@app.command(epilog="Example: acm server --broker mqtt://127.0.0.1:1883 --ledger sqlite:////var/lib/acm/ledger.db")
def server(
    config: ConfigOption = None,
    broker: Annotated[str | None, typer.Option("--broker", help="mqtt://HOST:PORT or mqtts://HOST:PORT")] = None,
    ledger: LedgerOption = None,
) -> None:
    """Run the server until it is told to end (TERM or INT): it sends what is in the ledger and keeps the results."""
    settings = load_config(config, {"broker": broker, "ledger": ledger})
    configure_logs(settings.log_level)
    forbid_dumps()
    take_out(SECRET_VARIABLES)
    process = ServerProcess(settings)
    with on_signals(process.stop):
        process.run()


@app.command(epilog="Example: acm commands --agent web-01 --state completed --json")
def commands(
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    state: Annotated[CommandState | None, typer.Option("--state", help="Only those in this state.")] = None,
    operation: Annotated[str | None, typer.Option("--operation", metavar="ID", help="Only this operation's.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many, the newest.")] = 100,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the commands, the newest first."""
    with open_ledger_of(config, ledger) as opened:
        rows = opened.commands(agent, state, operation, limit)
    if as_json:
        print_json([command_json(row) for row in rows])
    else:
        Console().print(commands_table(rows))


@app.command(epilog="Example: acm show 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f --json")
def show(
    command_id: CommandId, config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False
) -> None:
    """Show one command, its state and its result."""
    with open_ledger_of(config, ledger) as opened:
        row = opened.get(command_id)
        last_error = None if row.result else opened.last_error_of(row.agent)
    _print_command(row, as_json, last_error)


@app.command(epilog="Example: acm cancel 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
def cancel(
    command_id: CommandId,
    abandon: AbandonOption = False,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a command to be cancelled, whether it waits or runs; its result says what came of that."""
    with open_ledger_of(config, ledger) as opened:
        row = opened.abandon(command_id) if abandon else opened.request_cancel(command_id)
    _print_command(row, as_json)


@app.command(epilog="Example: acm agents --json")
def agents(config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """List the agents with the last status that each has published."""
    with open_ledger_of(config, ledger) as opened:
        rows = opened.agents()
    if as_json:
        print_json([agent_json(row) for row in rows])
    else:
        Console().print(agents_table(rows))


@app.command("active-responses", epilog="Example: acm active-responses web-01 --json")
def active_responses(
    agent: Annotated[str | None, typer.Argument(help="Only this agent's.")] = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what active responses did that will be taken back, as each agent's last status says."""
    with open_ledger_of(config, ledger) as opened:
        if agent is not None:
            check_known(opened, [agent], way_out="")
        rows = [row for row in opened.agents() if agent in (None, row.name)]
    if as_json:
        print_json([{"agent": row.name, **to_json(it)} for row in rows for it in pending_reversals(row)])
    else:
        Console().print(active_responses_table(rows))


def _print_command(row: LedgerRow, as_json: bool, last_error: str | None = None) -> None:
    if as_json:
        print_json(command_json(row, last_error))
    else:
        Console().print(command_panel(row, last_error))


_EXIT_CODES: dict[type[BrokerError], ExitCode] = {
    InvalidArgument: ExitCode.USAGE,
    InvalidName: ExitCode.USAGE,
    InvalidParameters: ExitCode.USAGE,
    ConfigurationError: ExitCode.CONFIGURATION,
    ExposedFileError: ExitCode.CONFIGURATION,
    CommandFailed: ExitCode.COMMAND_ERROR,
    WaitTimeout: ExitCode.WAIT_TIMEOUT,
    UnknownAgent: ExitCode.UNKNOWN_AGENT,
    AuditDiffers: ExitCode.AUDIT_DIFFERS,
}


def main() -> None:
    """Run acm; every error of ours becomes one sentence on stderr and a named exit code."""
    try:
        app(args=with_default_wait(sys.argv[1:]))
    except BrokerError as error:
        say(f"acm: {error}", to_stderr=True)
        sys.exit(_EXIT_CODES.get(type(error), ExitCode.FAILURE))
