"""Brings the tables of an older ledger up to date: one step a version, within the transaction that opens it."""

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

__all__ = ["SCHEMA_VERSION", "bring_up_to_date"]

_METADATA = sa.MetaData()
_VERSION = sa.Table("schema_version", _METADATA, sa.Column("version", sa.Integer, nullable=False))


def bring_up_to_date(connection: sa.Connection, metadata: sa.MetaData) -> None:
    """Make the tables that are missing, and change those of an older version; of a newer one nothing is changed."""
    is_new = not sa.inspect(connection).has_table("commands")
    _METADATA.create_all(connection)
    version = connection.scalar(sa.select(_VERSION.c.version))
    if version is None:
        version = SCHEMA_VERSION if is_new else 0
        connection.execute(_VERSION.insert().values(version=version))
    for step in _STEPS[version:]:
        step(connection)
    if version < SCHEMA_VERSION:
        connection.execute(_VERSION.update().values(version=SCHEMA_VERSION))
    metadata.create_all(connection)


def _add_operations(connection: sa.Connection) -> None:
    connection.execute(sa.text("ALTER TABLE commands ADD COLUMN operation_id VARCHAR(36)"))
    connection.execute(sa.text("ALTER TABLE commands ADD COLUMN outcome VARCHAR(8)"))
    connection.execute(sa.text("CREATE INDEX commands_of_operation ON commands (operation_id)"))
    connection.execute(sa.text("CREATE INDEX commands_of_agent ON commands (agent, state)"))
    done = connection.execute(sa.text("SELECT id, result FROM commands WHERE result IS NOT NULL")).all()
    for command_id, result in done:
        values = {"id": command_id, "outcome": msgspec.json.decode(result)["outcome"]}
        connection.execute(sa.text("UPDATE commands SET outcome = :outcome WHERE id = :id"), values)


_STEPS: tuple[Callable[[sa.Connection], None], ...] = (_add_operations,)
SCHEMA_VERSION = len(_STEPS)
