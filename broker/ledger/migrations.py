"""Migrates the tables of an older ledger in steps, at least one per version.

Each step is a transaction, so that a migration which was interrupted continues after the last one.
"""

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


def migrate(connection: sa.Connection, metadata: sa.MetaData) -> str | None:
    """Within a transaction, create the tables, or migrate those of an older version by one step.

    Return what the step has done, for people, or None if nothing is left to do. Raises LedgerError if the ledger is
    newer.
    """
    is_new = not sa.inspect(connection).has_table("commands")
    _METADATA.create_all(connection)
    version = connection.scalar(sa.select(_VERSION.c.version))
    if version is None:
        version = SCHEMA_VERSION if is_new else 0
        connection.execute(_VERSION.insert().values(version=version))
    _checked(version)
    if version < SCHEMA_VERSION:
        done = _STEPS[version](connection)
        if done is None:
            connection.execute(_VERSION.update().values(version=version + 1))
        return done or f"schema {version + 1} of {SCHEMA_VERSION}"
    metadata.create_all(connection)
    set_mark(connection)
    return None


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


def _add_types_of_commands(connection: sa.Connection) -> None:
    """Add the type that commands have in their bodies; one that is damaged has none."""
    connection.execute(sa.text("ALTER TABLE commands ADD COLUMN type VARCHAR(128)"))
    batch = sa.text("SELECT id, body FROM commands WHERE id > :last ORDER BY id LIMIT 1000")
    fill = sa.text("UPDATE commands SET type = :type WHERE id = :id")
    last = ""
    while rows := connection.execute(batch, {"last": last}).all():
        bodies = ((row.id, decoded(row.body, dict) or {}) for row in rows)
        types = [{"id": id_, "type": it["type"]} for id_, it in bodies if isinstance(it.get("type"), str)]
        if types:
            connection.execute(fill, types)
        last = rows[-1].id
    connection.execute(sa.text("CREATE INDEX commands_by_type ON commands (type, created_at)"))
    failed = "commands (created_at) WHERE outcome = 'error'"
    connection.execute(sa.text(f"CREATE INDEX failed_commands_by_time ON {failed}"))


_PARTIAL_INDEXES = {
    "commands_due": "commands (agent, epoch, number) WHERE to_send IS {true}",
    "commands_with_cancel_due": "commands (agent, created_at) WHERE cancel = 'to_send'",
    "open_commands_of_agent": "commands (agent, state) WHERE state != 'completed'",
    "open_commands_by_time": "commands (state, created_at) WHERE state != 'completed'",
    "commands_that_may_expire": "commands (expires_at) WHERE state IN ('queued', 'sent') AND expires_at IS NOT NULL",
    "commands_presumed_expired": "commands (agent) WHERE digest = 'server' AND expires_at IS NOT NULL",
    "commands_by_operation": "commands (operation_id, agent) WHERE operation_id IS NOT NULL",
    "ix_stray_results_received_at": "stray_results (received_at)",
}
_FULL_INDEXES = ("to_send", "to_cancel", "of_agent", "of_operation", "that_expire")


def _make_indexes_partial(connection: sa.Connection) -> str | None:
    """Create one of the indexes, or remove the old ones.

    No other program can write meanwhile, up to some seconds with a million commands; so each is a transaction.
    """
    inspector = sa.inspect(connection)
    tables = {"commands", "stray_results"} & set(inspector.get_table_names())
    found = {it["name"] for table in tables for it in inspector.get_indexes(table)}
    for name, definition in _PARTIAL_INDEXES.items():
        if name not in found and definition.partition(" ")[0] in tables:
            true = "1" if connection.dialect.name == "sqlite" else "TRUE"
            connection.execute(sa.text(f"CREATE INDEX {name} ON {definition.format(true=true)}"))
            return f"index {name}"
    for name in _FULL_INDEXES:
        connection.execute(sa.text(f"DROP INDEX IF EXISTS commands_{name}"))
    return None


def _add_times_and_connections(connection: sa.Connection) -> None:
    """Add columns without a value: however many commands there are, no row is written."""
    for name in ("sent_at", "stored_at", "running_at"):
        connection.execute(sa.text(f"ALTER TABLE commands ADD COLUMN {name} FLOAT"))
    if sa.inspect(connection).has_table("servers"):
        connection.execute(sa.text("ALTER TABLE servers ADD COLUMN connection_at FLOAT"))
        connection.execute(sa.text("ALTER TABLE servers ADD COLUMN connection_problem TEXT"))


def _add_silence(connection: sa.Connection) -> None:
    """Add a column without a value; the table of events is new, and `migrate` creates it."""
    connection.execute(sa.text("ALTER TABLE agents ADD COLUMN silent_at FLOAT"))


def _add_traces(connection: sa.Connection) -> None:
    """Add a column without a value: however many commands there are, no row is written."""
    connection.execute(sa.text("ALTER TABLE commands ADD COLUMN trace TEXT"))


# A step that returns what it has done is called again, in another transaction.
_STEPS: tuple[Callable[[sa.Connection], str | None], ...] = (
    _add_operations,
    _index_cancels_by_agent,
    _remember_incarnations,
    _add_forgotten,
    _add_body_checks,
    _add_requests_and_verdicts,
    _add_expiry,
    _make_indexes_partial,
    _add_times_and_connections,
    _add_types_of_commands,
    _add_silence,
    _add_traces,
)
SCHEMA_VERSION = len(_STEPS)
