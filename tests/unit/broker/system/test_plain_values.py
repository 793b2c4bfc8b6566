"""Values that need no conversion: a command gets what typer itself would give it."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from broker.system.plain_values import keep_plain_values


class Colour(StrEnum):
    RED = "red"


def called_with(words: list[str], change: Callable[[Any], Any]) -> tuple[int, str]:
    """Return the exit code and the output of a command in a changed group, which prints the values it gets."""

    class Changed(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            change(self)

    app = typer.Typer()

    @app.command()
    def show(
        name: str,
        rest: Annotated[list[str] | None, typer.Argument()] = None,
        text: Annotated[str | None, typer.Option(envvar="PLAIN_TEXT")] = None,
        file: Annotated[Path | None, typer.Option()] = None,
        number: Annotated[int, typer.Option(min=1, max=9)] = 5,
        wait: Annotated[float | None, typer.Option(parser=lambda word: float(word) * 2)] = None,
        word: Annotated[str, typer.Option(parser=str.upper)] = "",
        colour: Colour | None = None,
        flag: bool = False,
        unknown: bool | None = None,
        many: Annotated[list[Path] | None, typer.Option()] = None,
    ) -> None:
        print(
            f"{name!r} {rest!r} {text!r} {file!r} {number!r} {wait!r} {word!r} {colour!r} {flag!r} {unknown!r} {many!r}"
        )

    holder = typer.Typer(cls=Changed)
    holder.add_typer(app)
    holder.callback()(lambda: None)
    done = CliRunner().invoke(holder, ["show", *words])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["a"],
        ["", "b", "c"],
        ["a", "--text", "", "--file", "x/y"],
        ["a", "--file", ""],
        ["a", "--number", "7", "--wait", "2", "--word", "up"],
        ["a", "--number", "10"],
        ["a", "--number", "x"],
        ["a", "--colour", "red", "--flag", "--unknown"],
        ["a", "--colour", "blue", "--no-unknown"],
        ["a", "--many", "p", "--many", "q"],
        ["a", "--nothing"],
    ],
    ids=" ".join,
)
def test_command_gets_what_typer_would_give_it(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIN_TEXT", "from the environment")
    assert called_with(words, keep_plain_values) == called_with(words, lambda group: group)
