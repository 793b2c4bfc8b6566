"""acm-agent, the command line of the agent."""

import sys

import typer

from broker.errors import BrokerError, ExposedFileError
from broker.text import printable
from consumer.cli import enrolment, inspect, run, upgrade
from consumer.cli.exit_codes import AgentExitCode
from consumer.errors import ActiveResponseError, ConfigurationError, ConsumerError, StoreError

__all__ = ["app", "main"]


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="The agent of the agent command manager.",
)
for commands in (run, inspect, enrolment, upgrade):
    app.add_typer(commands.app)


def _code_for(error: ConsumerError | BrokerError) -> AgentExitCode:
    if isinstance(error, ConfigurationError | ActiveResponseError | ExposedFileError):
        return AgentExitCode.CONFIGURATION
    return AgentExitCode.STATE_DIRECTORY if isinstance(error, StoreError) else AgentExitCode.FAILURE


def main() -> None:
    """Run acm-agent; print each of our errors as one sentence on stderr, and exit with its code."""
    try:
        app()
    except (ConsumerError, BrokerError) as error:
        typer.echo(printable(f"acm-agent: {error}"), err=True)
        sys.exit(_code_for(error))
