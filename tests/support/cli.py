"""The commands of a command line."""

from collections.abc import Iterator
from typing import Any

import typer


def commands_of(app: typer.Typer) -> Iterator[tuple[str, Any]]:
    """Yield every command with its words, such as `group add`, hidden ones too."""
    return _leaves(typer.main.get_command(app), "")


def _leaves(group: Any, words: str) -> Iterator[tuple[str, Any]]:
    for name, listed in group.commands.items():
        command = group.load(name) if hasattr(group, "load") else listed
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{words}{name}", command
            yield from _leaves(command, f"{words}{name} ")
        else:
            yield f"{words}{name}", command
