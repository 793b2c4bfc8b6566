"""Replaces the agent's process with another program."""

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

from broker.system.process import forbid_dumps, remove_variables
from broker.system.service_manager import VARIABLES
from consumer.errors import ConsumerError
from consumer.handler import Replacement

__all__ = [
    "RESTARTED_BY",
    "replace_process",
    "take_secrets",
]


RESTARTED_BY = "ACM_RESTARTED_BY"
_SECRET_VARIABLES = ("ACM_BROKER",)  # its URL may hold a password


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
    program = replacement.program
    argv = [program, *sys.argv[1:]] if program else [sys.executable, *sys.orig_argv[1:]]
    try:
        os.execve(argv[0], argv, environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        raise ConsumerError(f"{argv[0]} cannot be run: {error.strerror}.", code="program_not_run") from error
