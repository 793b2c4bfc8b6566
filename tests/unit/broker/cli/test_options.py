"""Options that several commands share."""

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from broker.cli.options import WaitCommand, WaitOption
from broker.errors import InvalidArgument
from tests.support.errors import raises_code

app = typer.Typer()


@app.command(cls=WaitCommand)
def call(
    words: list[str],
    wait: WaitOption = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Print the arguments as they were understood."""
    typer.echo((words, wait, as_json))


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("a b", (["a", "b"], None, False)),
        ("a b --wait", (["a", "b"], 60.0, False)),
        ("a b --wait --json", (["a", "b"], 60.0, True)),
        ("a b --wait 30", (["a", "b"], 30.0, False)),
        ("a b --wait 5m x=1", (["a", "b", "x=1"], 300.0, False)),
        ("a b --wait x=1", (["a", "b", "x=1"], 60.0, False)),
        ("a b --wait=7", (["a", "b"], 7.0, False)),
        ("a b -- --wait", (["a", "b", "--wait"], None, False)),
    ],
)
def test_wait_option_takes_an_optional_duration(given: str, understood: object) -> None:
    done = CliRunner().invoke(app, given.split())
    assert done.output == f"{understood}\n"


@pytest.mark.parametrize("given", ["a --wait 0", "a --wait=soon"])
def test_wait_option_with_invalid_duration_is_rejected(given: str) -> None:
    with raises_code(InvalidArgument, "invalid_argument"):
        CliRunner().invoke(app, given.split(), catch_exceptions=False)
