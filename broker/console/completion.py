"""The scripts by which a shell completes the words of a program, and what the program needs to answer them."""

from enum import StrEnum
from typing import Annotated

import typer

__all__ = [
    "Shell",
    "ShellArgument",
    "completion_script",
    "completion_variable",
    "prepare_completion",
]


class Shell(StrEnum):
    """A shell whose completion is supported."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


ShellArgument = Annotated[Shell, typer.Argument(help="The shell.")]


def completion_script(program: str, shell: Shell) -> str:
    """Return the script that lets a shell ask the program what may follow; it ends without a line feed."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script: str = get_completion_script(prog_name=program, complete_var=completion_variable(program), shell=shell)
    return script


def completion_variable(program: str) -> str:
    """Return the name of the environment variable by which the scripts ask the program."""
    return f"_{program.replace('-', '_').upper()}_COMPLETE"


def prepare_completion() -> None:
    """Let the program answer in the forms of typer's scripts, which it does not without typer's own options."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
