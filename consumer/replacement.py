"""Replaces the agent's process with another program, and tests beforehand whether that program starts."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from broker.contract.messages import Output
from broker.contract.secret_shapes import mask_shapes
from broker.system.process import forbid_dumps, remove_variables
from broker.system.service_manager import VARIABLES
from consumer.errors import ConsumerError, ProgramError
from consumer.handler import Context, Replacement, Result
from consumer.settings import Confinement
from consumer.system.programs import Ended, run_program

__all__ = [
    "CHECK_START",
    "RESTARTED_BY",
    "StartTest",
    "replace_process",
    "take_secrets",
]


RESTARTED_BY = "ACM_RESTARTED_BY"
CHECK_START = "check-start"
"""The command of acm-agent that takes the options of `run` and returns where that would connect."""
_SECRET_VARIABLES = ("ACM_BROKER",)  # its URL may hold a password
_MAX_STDERR_CHARACTERS = 4096
_MAX_LINE_CHARACTERS = 300


def take_secrets() -> dict[str, str]:
    """Take the agent's secrets out of the environment, which children and /proc expose, and forbid core dumps.

    So that no child can speak to systemd in the agent's name, the variables of sd_notify(3) are taken as well. Return
    those that were set, by name: `is_watched` and `replace_process` take them.
    """
    forbid_dumps()
    return remove_variables((*_SECRET_VARIABLES, *VARIABLES))


def replace_process(replacement: Replacement, secrets: Mapping[str, str] = MappingProxyType({})) -> None:
    """Replace this process with another program, or the same one, under the same process id (execve(2)).

    It gets the arguments of this process, and the command's id in RESTARTED_BY. `secrets` are the variables that
    `take_secrets` took out of the environment. Raises ConsumerError if the program cannot be run.
    """
    environment = {**os.environ, **secrets, RESTARTED_BY: replacement.command_id}
    argv = [*_program_and_prefix(replacement.program), *sys.argv[1:]]
    try:
        os.execve(argv[0], argv, environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        raise ConsumerError(f"{argv[0]} cannot be run: {error.strerror}.", code="program_not_run") from error


def _program_and_prefix(program: str | None) -> list[str]:
    """Return the beginning of the command line of `program`, or of this process, up to the agent's own arguments."""
    if program is not None:
        return [program]
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]]


@dataclass(frozen=True)
class StartTest:
    """The ReplacementTest of `acm-agent run`: runs the program as CHECK_START, with the options of this process.

    `secrets` are the variables that `take_secrets` took out of the environment.
    """

    secrets: Mapping[str, str]

    def __call__(self, context: Context, program: str | None = None) -> Result | None:
        """Return the result of a command that must not replace the process; None if the program starts."""
        argv = [*_program_and_prefix(program), CHECK_START, *sys.argv[2:]]
        given = {name: value for name, value in self.secrets.items() if name in _SECRET_VARIABLES}
        bounds = replace(context.bounds(), confinement=Confinement())  # those of scripts may be narrow
        try:
            ended = run_program(argv, bounds, environment={**os.environ, **given})
        except ProgramError as error:
            return _refusal(context, str(error))
        return None if ended.good else _refused_by(context, ended)


def _refused_by(context: Context, ended: Ended) -> Result:
    stderr = mask_shapes(ended.output.stderr)[-_MAX_STDERR_CHARACTERS:]
    last_line = stderr.strip().rpartition("\n")[2][-_MAX_LINE_CHARACTERS:]
    what = f"its test {ended.in_words()}"
    reason = f"{what}: {last_line}" if last_line else f"{what}."
    return _refusal(context, reason, Output("", stderr, ended.output.truncated))


def _refusal(context: Context, reason: str, output: Output | None = None) -> Result:
    message = f"The agent stays as it is: the program to replace it would not start here: {reason}"
    return Result(message, code=context.failure_code(), output=output)
