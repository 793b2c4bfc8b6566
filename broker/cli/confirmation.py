"""Asks before a command goes to agents that its user has not named."""

import sys
from collections.abc import Sequence

from broker.errors import BrokerError, InvalidArgument
from broker.system.questions import ask
from broker.text import counted, printable, some_of

__all__ = [
    "NotConfirmed",
    "confirm_broad",
]


class NotConfirmed(BrokerError):
    """The user did not confirm; nothing was sent."""

    code = "not_confirmed"


def confirm_broad(command_type: str, agents: Sequence[str]) -> None:
    """Ask on a terminal whether to send to these agents; without one, require the option --yes.

    Raises NotConfirmed and InvalidArgument.
    """
    goes_to = f"{command_type} to {counted(len(agents), 'agent')}: {some_of(agents)}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidArgument(
            f"This would send {goes_to}. Without a terminal to confirm it at, add --yes; --dry-run shows all of them.",
            code="confirmation_needed",
        )
    try:
        answer = ask(printable(f"Send {goes_to}? [y/N]:"))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise NotConfirmed("Nothing was sent.")
