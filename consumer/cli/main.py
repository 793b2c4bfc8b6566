"""acm-agent, the command line of the agent."""

from typing import Annotated, Any

from typer.core import TyperGroup

from broker.console.program import root_app, run_app, version_option
from broker.errors import CodedError, ExposedFileError, InvalidArgument
from broker.system.entry import run_command_line
from broker.system.findings import ChecksFailed
from broker.system.plain_values import keep_plain_values
from consumer.cli import SERVICES, completion, doctor, enrolment, inspect, journal, run, status, upgrade
from consumer.cli.exit_codes import AgentExitCode
from consumer.errors import ActiveResponseError, ConfigurationError, StoreError

__all__ = ["app", "main"]


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        keep_plain_values(self)


app = root_app(_Group)
for commands in (run, status, doctor, inspect, journal, enrolment, upgrade, completion):
    app.add_typer(commands.app)


@app.callback()
def acm_agent(show_version: Annotated[bool, version_option("acm-agent")] = False) -> None:
    """Run the agent of the agent command manager, and look at it on its machine."""


def _code_for(error: CodedError) -> AgentExitCode:
    if isinstance(error, ChecksFailed):
        return AgentExitCode.CHECKS_FAILED
    if isinstance(error, InvalidArgument):
        return AgentExitCode.USAGE
    if isinstance(error, ConfigurationError | ActiveResponseError | ExposedFileError):
        return AgentExitCode.CONFIGURATION
    return AgentExitCode.STATE_DIRECTORY if isinstance(error, StoreError) else AgentExitCode.FAILURE


def main() -> None:
    """Run acm-agent; print each of our errors as one sentence on stderr, and exit with its code."""
    run_command_line("acm-agent", lambda: run_app(app, "acm-agent"), _code_for, services=SERVICES)
