"""What the pages show, read by plain statements of the database's own driver: a reference without anything of ours."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

__all__ = ["RAW_QUERIES", "reading"]

_STATE = "CASE WHEN status IS NULL THEN 'unknown' WHEN NOT online THEN 'offline' ELSE 'online' END"
_FLEET = (
    f"SELECT {_STATE} AS state, count(*) FROM agents WHERE forgotten_at IS NULL GROUP BY 1",
    "SELECT status FROM agents WHERE forgotten_at IS NULL",  # which has the version
    'SELECT "group", count(*), sum(CASE WHEN online THEN 1 ELSE 0 END) FROM group_members '
    "JOIN agents ON name = agent GROUP BY 1",
    "SELECT state, count(*) FROM commands WHERE state <> 'completed' GROUP BY 1",
    "SELECT * FROM commands WHERE outcome = 'error' ORDER BY created_at DESC LIMIT 8",
    "SELECT agent, max(not_after) FROM enrolments JOIN certificates ON enrolment_id = id "
    "WHERE revoked_at IS NULL GROUP BY 1 ORDER BY 2 LIMIT 100",
)
_AGENTS = (
    "SELECT * FROM agents WHERE forgotten_at IS NULL ORDER BY name LIMIT 50",
    "SELECT count(*) FROM agents WHERE forgotten_at IS NULL",
)
_COMMANDS = ("SELECT * FROM commands ORDER BY created_at DESC LIMIT 50",)
# By the path of the page.
RAW_QUERIES: Mapping[str, Sequence[str]] = {"/": _FLEET, "/agents": _AGENTS, "/commands": _COMMANDS}

Read = Callable[[str], Sequence[Any]]


@contextmanager
def reading(url: str) -> Iterator[Read]:
    """Yield what reads all rows of a statement from a ledger."""
    if url.startswith("sqlite"):
        file = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        yield lambda query: file.execute(query).fetchall()
        file.close()
        return
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield lambda query: connection.execute(query).fetchall()
