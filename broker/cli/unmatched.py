"""acm unmatched: results that answer no command of the ledger."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from broker.cli.options import LimitOption
from broker.cli.output import id_column, newest_of, second, table
from broker.cli.session import LEDGER, Session, with_session
from broker.cli.targets import check_known
from broker.command_types import parameters_of
from broker.contract.commands import mask_secret_parameters
from broker.contract.messages import Command, JsonObject, Origin
from broker.ledger.unmatched_results import UnmatchedResult
from broker.text import rfc3339

__all__ = ["app"]


app = typer.Typer()


@app.command(epilog="Example: acm unmatched --agent web-01 --json")
@with_session(LEDGER, only_reads=True)
def unmatched(
    session: Session,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="AGENT", help="Show only results of this agent.")
    ] = None,
    limit: LimitOption = 100,
) -> None:
    """List results that answer no open command, newest first: of a command that is unknown, or has another result."""
    if agent is not None:
        check_known(session.ledger, [agent], can_allow=False)
    results, title = newest_of(session.ledger.unmatched_results(agent, limit + 1), limit, "unmatched result")
    session.show([_as_json(result) for result in results], _table(results, title))


def _as_json(unmatched: UnmatchedResult) -> JsonObject:
    return {
        "agent": unmatched.agent,
        "command_id": unmatched.command_id,
        "digest": unmatched.digest,
        "received_at": rfc3339(unmatched.received_at),
        "result": _masked(unmatched),
    }


def _masked(unmatched: UnmatchedResult) -> JsonObject:
    """Return the result with the secret parameters masked of the command that it echoes."""
    echo = unmatched.result.get("command") or {}
    command_type, parameters = echo.get("type"), echo.get("parameters")
    if not isinstance(command_type, str) or not isinstance(parameters, dict):
        return unmatched.result
    command = Command(
        unmatched.command_id, command_type, parameters, Origin(unmatched.agent, ""), unmatched.received_at
    )
    masked: JsonObject = mask_secret_parameters(command, unmatched.result, parameters_of(command_type))
    return masked


def _table(results: Sequence[UnmatchedResult], title: str) -> Table:
    columns = (id_column("command"), "agent", "received (UTC)", "outcome", "message")
    return table(
        title,
        columns,
        (
            (it.command_id, it.agent, second(it.received_at), _outcome(it.result), str(it.result.get("message", "")))
            for it in results
        ),
    )


def _outcome(result: JsonObject) -> str:
    return " ".join(str(word) for word in (result.get("outcome"), result.get("code")) if word)
