"""Options that several commands of acm share."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from broker.durations import has_duration_form, parse_duration

__all__ = [
    "AbandonOption",
    "AllowUnknownOption",
    "ForceOption",
    "LimitOption",
    "WaitCommand",
    "WaitOption",
]


_DEFAULT_WAIT = "60s"
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Show at most this many, the newest.")]
AllowUnknownOption = Annotated[
    bool, typer.Option("--allow-unknown", help="Accept agents that are not in the ledger yet.")
]
AbandonOption = Annotated[
    bool,
    typer.Option(
        "--abandon",
        help="Mark it as interrupted in the ledger without asking the agent. It may have run, or may still run.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Send it even if an agent does not support the type, as its status shows.")
]
WaitOption = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="[SECONDS]",
        parser=parse_duration,
        help="Wait for completion (without a value: 60 seconds).",
    ),
]


class WaitCommand(TyperCommand):
    """A command whose `--wait` has an optional value.

    Typer rejects click's declaration of it (`is_flag=False, flag_value=…`), and click would take the `x=1` of `--wait
    x=1` as the value; here only a duration is taken as the value.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command's arguments; a `--wait` without a duration gets the default."""
        return super().parse_args(ctx, list(_with_default_wait(args)))


def _with_default_wait(args: list[str]) -> list[str]:
    completed: list[str] = []
    for index, word in enumerate(args):
        if word == "--":
            return completed + args[index:]
        is_bare = word == "--wait" and not has_duration_form("".join(args[index + 1 : index + 2]))
        completed.append(f"--wait={_DEFAULT_WAIT}" if is_bare else word)
    return completed
