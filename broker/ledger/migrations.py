"""Migrates the tables of an older ledger: one step per version, in the transaction that opens the database."""

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from broker.contract.messages import Command
from broker.contract.states import Outcome
from broker.errors import LedgerError
from broker.ledger.damage import decoded
from broker.ledger.ownership import set_mark

__all__ = [
    "SCHEMA_VERSION",
    "is_current",
    "migrate",
]


_METADATA = sa.MetaData()
_VERSION = sa.Table("schema_version", _METADATA, sa.Column("version", sa.Integer, nullable=False))


def is_current(connection: sa.Connection, metadata: sa.MetaData) -> bool:
    """Whether the ledger has all tables, in this version, so that `migrate` would change nothing.

    Raises LedgerError if the ledger is newer.
    """
    tables = sa.inspect(connection).get_table_names()
    if not {_VERSION.name, *metadata.tables}.issubset(tables):
        return False
    return _checked(connection.scalar(sa.select(_VERSION.c.version))) == SCHEMA_VERSION


def migrate(connection: sa.Connection, metadata: sa.MetaData) -> None:
    """Create missing tables, and migrate those of an older version. Raises LedgerError if the ledger is newer."""
    is_new = not sa.inspect(connection).has_table("commands")
    _METADATA.create_all(connection)
    version = connection.scalar(sa.select(_VERSION.c.version))
    if version is None:
        version = SCHEMA_VERSION if is_new else 0
        connection.execute(_VERSION.insert().values(version=version))
    _checked(version)
    for step in _STEPS[version:]:
        step(connection)
    if version < SCHEMA_VERSION:
        connection.execute(_VERSION.update().values(version=SCHEMA_VERSION))
    metadata.create_all(connection)
    set_mark(connection)


def _checked(version: int | None) -> int | None:
    if version is not None and version > SCHEMA_VERSION:
        raise LedgerError(
            f"The ledger has schema {version}, and this acm knows {SCHEMA_VERSION}: install a newer acm.",
            code="newer_schema",
        )
    return version


def _add_operations(connection: sa.Connection) -> None:
    connection.execute(sa.text("ALTER TABLE commands ADD COLUMN operation_id VARCHAR(36)"))
    connection.execute(sa.text("ALTER TABLE commands ADD COLUMN outcome VARCHAR(8)"))
    connection.execute(sa.text("CREATE INDEX commands_of_operation ON commands (operation_id)"))
    connection.execute(sa.text("CREATE INDEX IF NOT EXISTS commands_of_agent ON commands (agent, state)"))
    _fill_outcomes(connection)


def _fill_outcomes(connection: sa.Connection) -> None:
    """Fill the new column from the results, in batches: there may be more of them than fit in memory."""
    batch = sa.text("SELECT id, result FROM commands WHERE result IS NOT NULL AND id > :last ORDER BY id LIMIT 1000")
    fill = sa.text("UPDATE commands SET outcome = :outcome WHERE id = :id")
    last = ""
    while rows := connection.execute(batch, {"last": last}).all():
        outcomes = [
            {"id": row.id, "outcome": msgspec.json.decode(row.result).get("outcome", Outcome.ERROR)} for row in rows
        ]
        connection.execute(fill, outcomes)
        last = rows[-1].id


def _index_cancels_by_agent(connection: sa.Connection) -> None:
    connection.execute(sa.text("DROP INDEX IF EXISTS commands_cancel"))
    connection.execute(sa.text("CREATE INDEX commands_to_cancel ON commands (cancel, agent)"))


def _remember_incarnations(connection: sa.Connection) -> None:
    connection.execute(sa.text("ALTER TABLE agents ADD COLUMN past_incarnations TEXT"))
    connection.execute(sa.text("ALTER TABLE agents ADD COLUMN name_conflict_at FLOAT"))


def _add_forgotten(connection: sa.Connection) -> None:
    connection.execute(sa.text("ALTER TABLE agents ADD COLUMN forgotten_at FLOAT"))


def _add_body_checks(connection: sa.Connection) -> None:
    connection.execute(sa.text("ALTER TABLE commands ADD COLUMN body_check VARCHAR(16)"))


def _add_requests_and_verdicts(connection: sa.Connection) -> None:
    connection.execute(sa.text("ALTER TABLE agents ADD COLUMN request VARCHAR(36)"))
    connection.execute(sa.text("ALTER TABLE commands ADD COLUMN verdict TEXT"))


def _add_expiry(connection: sa.Connection) -> None:
    """Add the time that open commands have in their bodies; one that is damaged has none."""
    connection.execute(sa.text("ALTER TABLE commands ADD COLUMN expires_at FLOAT"))
    connection.execute(sa.text("CREATE INDEX commands_that_expire ON commands (state, expires_at)"))
    batch = sa.text("SELECT id, body FROM commands WHERE state <> 'completed' AND id > :last ORDER BY id LIMIT 1000")
    fill = sa.text("UPDATE commands SET expires_at = :expires_at WHERE id = :id")
    last = ""
    while rows := connection.execute(batch, {"last": last}).all():
        commands = ((row.id, decoded(row.body, Command)) for row in rows)
        times = [{"id": id_, "expires_at": it.expires_at.timestamp()} for id_, it in commands if it and it.expires_at]
        if times:
            connection.execute(fill, times)
        last = rows[-1].id


_STEPS: tuple[Callable[[sa.Connection], None], ...] = (
    _add_operations,
    _index_cancels_by_agent,
    _remember_incarnations,
    _add_forgotten,
    _add_body_checks,
    _add_requests_and_verdicts,
    _add_expiry,
)
SCHEMA_VERSION = len(_STEPS)
