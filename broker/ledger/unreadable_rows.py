"""Rows that PostgreSQL itself cannot read: one damaged value that it has compressed fails each query of its row."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa

from broker.contract.states import ErrorCode
from broker.errors import LedgerError
from broker.ledger.agents import get_or_create_all
from broker.ledger.completion import DAMAGED, complete_all
from broker.ledger.damage import DamagedRow, keep_damaged, placeholder_body
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN

__all__ = [
    "despite_unreadable_rows",
]


_ROWS_PER_QUERY = 200
_REASON = "the database cannot read it"


class _HasDatabase(Protocol):
    database: Database
    _now: Callable[[], datetime]


_Self = TypeVar("_Self", bound=_HasDatabase)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def despite_unreadable_rows(
    method: Callable[Concatenate[_Self, _Arguments], _Result],
) -> Callable[Concatenate[_Self, _Arguments], _Result]:
    """Decorate a method: if it fails for damaged rows, they are set aside, and it is called again."""

    @wraps(method)
    def call(self: _Self, /, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        try:
            return method(self, *arguments, **named)
        except LedgerError as error:
            if error.code != "ledger_damaged" or self.database.is_sqlite or not _set_aside(self.database, self._now()):
                raise
        return method(self, *arguments, **named)

    return call


def _set_aside(database: Database, now: datetime) -> bool:
    """Set the open commands and the agents aside whose rows cannot be read; return whether there were any."""
    with database.reading() as connection:
        names = connection.scalars(sa.select(AGENTS.c.name)).all()
        ids = connection.scalars(sa.select(COMMANDS.c.id).where(IS_OPEN)).all()
    agents, commands = _unreadable(database, AGENTS.c.name, names), _unreadable(database, COMMANDS.c.id, ids)
    for name in agents:
        _repair_agent(database, name, now)
    for command_id in commands:
        _complete(database, command_id, now)
    return bool(agents or commands)


def _unreadable(database: Database, key: sa.Column[str], keys: Sequence[str]) -> list[str]:
    batches = (keys[first : first + _ROWS_PER_QUERY] for first in range(0, len(keys), _ROWS_PER_QUERY))
    damaged = (batch for batch in batches if not _reads(database, key, batch))
    return [it for batch in damaged for it in batch if not _reads(database, key, [it])]


def _reads(database: Database, key: sa.Column[str], keys: Sequence[str]) -> bool:
    try:
        with database.reading() as connection:
            connection.execute(key.table.select().where(key.in_(keys))).all()
    except LedgerError as error:
        if error.code != "ledger_damaged":
            raise
        return False
    return True


@retry_conflicts
def _repair_agent(database: Database, name: str, now: datetime) -> None:
    values = {"status": None, "past_incarnations": None}
    with database.transaction() as connection:
        connection.execute(AGENTS.update().where(AGENTS.c.name == name).values(values))
        keep_damaged(connection, DamagedRow(AGENTS.name, name, name, _REASON, "", None), now)


@retry_conflicts
def _complete(database: Database, command_id: str, now: datetime) -> None:
    is_command = COMMANDS.c.id == command_id
    with database.transaction() as connection:
        agent: Any = connection.scalar(sa.select(COMMANDS.c.agent).where(is_command))
        get_or_create_all(connection, [agent], now)
        keep_damaged(connection, DamagedRow(COMMANDS.name, command_id, agent, _REASON, "", None), now)
        body = placeholder_body(command_id, now)
        connection.execute(COMMANDS.update().where(is_command).values(body=body, body_check=None, result=None))
        complete_all(connection, [is_command], ErrorCode.INTERRUPTED, DAMAGED, now)
