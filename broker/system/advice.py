"""What a finding says to do, taken from the sentence of an error where that has it."""

import re

from broker.errors import CodedError

__all__ = ["advised_command"]


_COMMAND = re.compile(r"`([^`]+)`")


def advised_command(error: CodedError) -> str | None:
    """Return the command that the sentence of an error advises, or None."""
    found = _COMMAND.search(str(error))
    return found[1] if found else None
