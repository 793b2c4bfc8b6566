"""The root of a command line: its `--version`, its answers to a shell that completes, and errors of usage as JSON."""

import os
import sys
from importlib.metadata import version
from typing import Any

import typer

from broker.console.completion import completion_variable, prepare_completion
from broker.errors import InvalidArgument
from broker.system.entry import asks_for_json

__all__ = [
    "root_app",
    "run_app",
    "version_option",
]


def root_app(group: type[Any]) -> typer.Typer:
    """Return the program's app, whose commands are in a group of this class."""
    return typer.Typer(
        cls=group,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def version_option(program: str) -> Any:
    """Return the option that shows the version of the program."""

    def show(is_asked: bool) -> None:
        if is_asked:
            typer.echo(f"{program} {version('agent-command-manager')}")
            raise typer.Exit

    return typer.Option("--version", callback=show, is_eager=True, help="Show the version and exit.")


def run_app(app: typer.Typer, program: str) -> None:
    """Run the app on the words of the command line, or let it answer the shell that asks what may follow them.

    Raises InvalidArgument for wrong usage if the command line asks for JSON; otherwise typer says what is wrong.
    """
    if completion_variable(program) in os.environ:
        prepare_completion()
    if not asks_for_json():
        app()
        return
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        raise InvalidArgument("The input has ended at a question.", code="input_ended") from None
    except Exception as error:  # typer does not name the class of all its errors of usage
        if not hasattr(error, "format_message"):
            raise
        raise InvalidArgument(error.format_message(), code="wrong_usage") from error
    sys.exit(code)
