"""acm-agent: runs the agent and shows its queue."""

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.table import Table

from broker.errors import BrokerError
from consumer.agent import RESTARTED_BY, Agent, replace_process
from consumer.config import AgentConfig, load_config, merge_sources, origins, read_sources
from consumer.errors import ConfigurationError, ConsumerError, StoreError
from consumer.exit_codes import ExitCode
from consumer.queue_reader import read_queue

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The agent of the agent command manager.")

ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML configuration file.")]
AgentOption = Annotated[str | None, typer.Option("--agent", help="The agent's name, also its MQTT client id.")]
BrokerOption = Annotated[str | None, typer.Option("--broker", help="mqtt://HOST:PORT")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory, used by this agent alone.")]
UnsignedOption = Annotated[
    bool | None, typer.Option("--accept-unsigned", help="Also run commands that any MQTT client sent.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


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
def _stopped_by_signals(agent: Agent) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: agent.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command(epilog="Example: acm-agent run --agent web-01 --broker mqtt://127.0.0.1:1883 --state /var/lib/acm")
def run(
    config: ConfigOption = None,
    agent: AgentOption = None,
    broker: BrokerOption = None,
    state: StateOption = None,
    accept_unsigned: UnsignedOption = None,
) -> None:
    """Run the agent until it is told to end (TERM or INT)."""
    flags = {
        "agent": agent,
        "broker": broker,
        "state": state and str(state),
        "accept_unsigned": accept_unsigned,
    }
    sources = read_sources(config, flags)
    settings = merge_sources(sources)
    _configure_logs(settings.log_level)
    restarting = Agent(settings, origins=origins(sources), restarted_by=os.environ.pop(RESTARTED_BY, None))
    with _stopped_by_signals(restarting):
        command_id = restarting.run()
    if command_id is not None:
        replace_process(command_id)


@app.command(epilog="Example: acm-agent queue --state /var/lib/acm --json")
def queue(
    state: Annotated[Path, typer.Option("--state", envvar="ACM_STATE", help="State directory of the agent.")],
    as_json: JsonOption = False,
) -> None:
    """Show the commands that the agent holds; works while it runs."""
    rows = [
        {
            "id": stored.command.id,
            "type": stored.command.type,
            "state": str(stored.state),
            "received_at": stored.received_at.isoformat(),
            "outcome": str(stored.result.outcome) if stored.result else None,
        }
        for stored in read_queue(state)
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("id", "type", "state", "received", "outcome", title=f"{len(rows)} commands")
    for row in rows:
        table.add_row(row["id"], row["type"], row["state"], row["received_at"], row["outcome"] or "")
    Console().print(table)


@app.command("check-config", epilog="Example: acm-agent check-config --config agent.toml")
def check_config(
    config: ConfigOption = None,
    agent: AgentOption = None,
    broker: BrokerOption = None,
    state: StateOption = None,
) -> None:
    """Say whether the configuration can be used."""
    settings: AgentConfig = load_config(config, {"agent": agent, "broker": broker, "state": state and str(state)})
    typer.echo(f"The configuration of {settings.agent} is good.")


def _code_for(error: ConsumerError | BrokerError) -> ExitCode:
    if isinstance(error, ConfigurationError):
        return ExitCode.CONFIGURATION
    return ExitCode.STATE_DIRECTORY if isinstance(error, StoreError) else ExitCode.FAILURE


def main() -> None:
    """Run acm-agent; every error of ours becomes one sentence on stderr and a named exit code."""
    try:
        app()
    except (ConsumerError, BrokerError) as error:
        typer.echo(f"acm-agent: {error}", err=True)
        sys.exit(_code_for(error))
