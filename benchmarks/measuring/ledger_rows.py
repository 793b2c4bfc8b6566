"""Fills a ledger quickly: one command goes the way of all, and its row is the pattern of as many as are wanted."""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from benchmarks.measuring.commands import command_id
from broker.contract.messages import Feedback, Origin
from broker.contract.states import FeedbackKind, Outcome
from broker.ledger.agents import get_or_create_all
from broker.ledger.damage import body_check
from broker.ledger.database import Database
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import AGENTS, COMMANDS, CommandState

__all__ = ["NO_OP", "add_accepted", "add_completed", "take_over"]

NO_OP = CommandRequest("no-op", {}, Origin("bench", "benchmarks"))
_PER_COMMIT = 50_000
_PATTERN_AGENT = "pattern"


def add_accepted(ledger: Ledger, agents: Sequence[str], each: int) -> int:
    """Give each of these agents `each` commands that it has accepted, numbered from 1 in a new epoch; return that."""
    epoch = int(time.time() * 1000) + 1
    row = _pattern(ledger, None)
    row |= {"state": CommandState.ACCEPTED.value, "to_send": False, "epoch": epoch}
    _write(ledger.database, _copies(row, [(agent, number) for number in range(1, each + 1) for agent in agents]))
    take_over(ledger, agents, epoch, each + 1)
    return epoch


def add_completed(ledger: Ledger, agents: Sequence[str], first: int, last: int) -> None:
    """Give the agents in turn the completed commands `first` to `last` of all; `first` follows the last one before."""
    row = _pattern(ledger, Outcome.SUCCESS)
    places = ((agents[(it - 1) % len(agents)], (it - 1) // len(agents) + 1) for it in range(first, last + 1))
    _write(ledger.database, _copies(row, places))


def take_over(ledger: Ledger, agents: Sequence[str], epoch: int, next_number: int) -> None:
    """Let the ledger number the next command of these agents, which it knows, with this number in this epoch."""
    with ledger.database.transaction() as connection:
        for first in range(0, len(agents), 500):
            named = AGENTS.c.name.in_(agents[first : first + 500])
            connection.execute(AGENTS.update().where(named).values(epoch=epoch, next_number=next_number))


def _pattern(ledger: Ledger, outcome: Outcome | None) -> dict[str, Any]:
    """Return the row of a command that was sent and, if there is an outcome, completed with it; and remove it."""
    command = ledger.add_command(_PATTERN_AGENT, NO_OP)
    ledger.claim_due(1, [_PATTERN_AGENT])
    if outcome is not None:
        ledger.record_turn({_PATTERN_AGENT: [_result(command.id, outcome)]})
    with ledger.database.transaction() as connection:
        row = dict(connection.execute(COMMANDS.select().where(COMMANDS.c.id == command.id)).mappings().one())
        connection.execute(COMMANDS.delete().where(COMMANDS.c.id == command.id))
        connection.execute(AGENTS.delete().where(AGENTS.c.name == _PATTERN_AGENT))
    return row


def _result(command: str, outcome: Outcome) -> Feedback:
    now = datetime.now(UTC)
    echo = {"id": command, "type": "no-op", "parameters": {}, "origin": {"name": "bench", "module": "benchmarks"}}
    return Feedback(
        FeedbackKind.RESULT,
        _PATTERN_AGENT,
        f"g-{_PATTERN_AGENT}",
        f"i-{_PATTERN_AGENT}",
        "completed",
        "Done.",
        command_id=command,
        command={**echo, "created_at": now.isoformat(), "status": "processing"},
        outcome=outcome,
        started_at=now,
        finished_at=now,
        digest="9" * 64,
    )


def _copies(row: dict[str, Any], places: Iterable[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Yield the row for each of these agents and numbers, a millisecond after the one before."""
    old = row["id"]
    for count, (agent, number) in enumerate(places):
        name = command_id(agent, number)
        copy = dict(row)
        copy.update(id=name, agent=agent, number=number)
        for column in ("body", "result"):
            if copy[column] is not None:
                copy[column] = copy[column].replace(old, name).replace(_PATTERN_AGENT, agent)
        if copy["body_check"] is not None:
            copy["body_check"] = body_check(name, agent, copy["body"])
        for column in ("created_at", "completed_at"):
            if copy[column] is not None:
                copy[column] += count / 1000
        yield copy


def _write(database: Database, rows: Iterator[dict[str, Any]]) -> None:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _PER_COMMIT:
            _write_batch(database, batch)
            batch = []
    if batch:
        _write_batch(database, batch)


def _write_batch(database: Database, batch: list[dict[str, Any]]) -> None:
    """Write the rows by the driver's own means: SQLAlchemy takes several times as long."""
    names = [column.name for column in COMMANDS.columns]
    values = [tuple(row[name] for name in names) for row in batch]
    with database.transaction() as connection:
        _create_agents(connection, {row["agent"] for row in batch})
        cursor = connection.connection.cursor()
        listed = ", ".join(f'"{name}"' for name in names)
        if database.is_sqlite:
            cursor.executemany(f"INSERT INTO commands ({listed}) VALUES ({', '.join('?' * len(names))})", values)
            return
        with cursor.copy(f"COPY commands ({listed}) FROM STDIN") as copy:
            for row in values:
                copy.write_row(row)


def _create_agents(connection: sa.Connection, agents: set[str]) -> None:
    names = sorted(agents)
    for first in range(0, len(names), 500):
        get_or_create_all(connection, names[first : first + 500], datetime.now(UTC))
