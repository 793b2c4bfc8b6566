"""The commands of a command line, and acm in the process of the tests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import typer
from typer.testing import CliRunner

from broker.cli.exit_codes import exit_code_of
from broker.cli.main import app as acm_app
from broker.errors import CodedError


@dataclass(frozen=True)
class Called:
    """What a call of a command line came to; `code` and `message` are those of its error."""

    exit_code: int
    stdout: str
    stderr: str
    code: str = ""
    message: str = ""

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.stdout)


def called(
    app: typer.Typer, *words: str, environment: Mapping[str, str | None] | None = None, stdin: str | None = None
) -> Called:
    """Call a command line in this process; an error that its user would see is in what is returned."""
    done = CliRunner().invoke(app, words, env=environment, input=stdin)
    error = done.exception
    if isinstance(error, CodedError):
        return Called(exit_code_of(error), done.stdout, done.stderr, error.code, str(error))
    assert error is None or isinstance(error, SystemExit), error
    return Called(done.exit_code, done.stdout, done.stderr)


def acm(url: str, *words: str, **environment: str) -> Any:
    """Call acm with the ledger at this URL; what it does not expect is raised."""
    return CliRunner().invoke(acm_app, words, env={"ACM_LEDGER": url, **environment}, catch_exceptions=False)


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
