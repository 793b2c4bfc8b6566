"""acm-agent, the command line of the agent."""

import typer

from broker.errors import CodedError, ExposedFileError
from broker.system.entry import run_command_line
from consumer.cli import SERVICES, enrolment, inspect, run, upgrade
from consumer.cli.exit_codes import AgentExitCode
from consumer.errors import ActiveResponseError, ConfigurationError, StoreError

__all__ = ["app", "main"]


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="The agent of the agent command manager.",
)
for commands in (run, inspect, enrolment, upgrade):
    app.add_typer(commands.app)


def _code_for(error: CodedError) -> AgentExitCode:
    if isinstance(error, ConfigurationError | ActiveResponseError | ExposedFileError):
        return AgentExitCode.CONFIGURATION
    return AgentExitCode.STATE_DIRECTORY if isinstance(error, StoreError) else AgentExitCode.FAILURE


def main() -> None:
    """Run acm-agent; print each of our errors as one sentence on stderr, and exit with its code."""
    run_command_line("acm-agent", app, _code_for, services=SERVICES)
