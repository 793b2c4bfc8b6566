"""The tables of the ledger. Times are in seconds since 1970 (UTC)."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from broker.contract.states import CommandState, Outcome
from broker.ledger.outcomes import SERVER

__all__ = [
    "AGENTS",
    "AUDITS",
    "BLOBS",
    "BLOB_CHUNKS",
    "CANCEL_IS_DUE",
    "COMMANDS",
    "DAMAGED_ROWS",
    "EVENTS",
    "GROUP_CONFIGURATIONS",
    "GROUP_MEMBERS",
    "HAS_FAILED",
    "IS_DUE",
    "IS_OPEN",
    "IS_PRESUMED_EXPIRED",
    "MAY_EXPIRE",
    "METADATA",
    "OPERATIONS",
    "PRUNED_COMMANDS",
    "REFUSED_MESSAGES",
    "SERVERS",
    "STRAY_RESULTS",
    "Cancel",
    "CommandState",
    "in_state",
    "moment",
    "new_agent",
    "utc",
]


class Cancel(StrEnum):
    """Whether the user requested cancellation, and whether that was sent to the agent."""

    NO = "no"
    TO_SEND = "to_send"
    SENT = "sent"


METADATA = sa.MetaData()
AGENTS = sa.Table(
    "agents",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("next_number", sa.BigInteger, nullable=False),
    sa.Column("store_generation", sa.String(128)),
    sa.Column("incarnation", sa.String(128)),
    sa.Column("online", sa.Boolean, nullable=False),
    sa.Column("status", sa.Text),
    sa.Column("seen_at", sa.Float),
    sa.Column("resend_at", sa.Float, index=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("past_incarnations", sa.Text),
    sa.Column("name_conflict_at", sa.Float),
    sa.Column("forgotten_at", sa.Float),
    sa.Column("request", sa.String(36)),
    sa.Column("silent_at", sa.Float),
)


def new_agent(name: str, now: datetime) -> dict[str, Any]:
    """Return the row of an agent that has sent no status yet. Its first epoch is the time, so none is used twice."""
    return {"name": name, "epoch": int(now.timestamp() * 1000), "next_number": 1, "online": False, "attempts": 0}


def moment(seconds: float | None) -> datetime | None:
    """Return the time in a column, or None; also for a value that no clock has written."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, TypeError, ValueError):
        return None


def utc(seconds: float) -> datetime:
    """Return the time in a column that has one; the beginning of 1970 for a value that no clock has written."""
    return moment(seconds) or datetime.fromtimestamp(0, UTC)


COMMANDS = sa.Table(
    "commands",
    METADATA,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("agent", sa.String(64), sa.ForeignKey("agents.name"), nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("to_send", sa.Boolean, nullable=False),
    sa.Column("cancel", sa.String(8), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
    sa.Column("completed_at", sa.Float),
    sa.Column("digest", sa.String(128)),
    sa.Column("result", sa.Text),
    sa.Column("outcome", sa.String(8)),
    sa.Column("operation_id", sa.String(36)),
    sa.Column("body_check", sa.String(16)),
    sa.Column("verdict", sa.Text),
    sa.Column("expires_at", sa.Float),
    sa.Column("sent_at", sa.Float),
    sa.Column("stored_at", sa.Float),
    sa.Column("running_at", sa.Float),
    sa.Column("type", sa.String(128)),
    sa.Column("trace", sa.Text),
    sa.UniqueConstraint("agent", "epoch", "number"),
    sa.Index("commands_by_type", "type", "created_at"),
)


def in_state(state: CommandState) -> sa.ColumnElement[bool]:
    """Return the condition that a command is in this state, for which SQLite finds the index of open commands."""
    is_in = COMMANDS.c.state == state
    return is_in if state is CommandState.COMPLETED else sa.and_(IS_OPEN, is_in)


def _literal(value: StrEnum) -> sa.ColumnElement[str]:
    return sa.literal_column(f"'{value}'")


# Each of these conditions has a partial index, which is small whatever the ledger has. SQLite uses it only if the
# statement has the condition itself: it does not know what a bound parameter will be, and reads all commands instead,
# half a second for a million. So statements use these names, and `in_state`.
IS_OPEN = COMMANDS.c.state != _literal(CommandState.COMPLETED)  # it has no result yet
IS_DUE = COMMANDS.c.to_send.is_(True)
CANCEL_IS_DUE = COMMANDS.c.cancel == _literal(Cancel.TO_SEND)
MAY_EXPIRE = sa.and_(  # it has not been accepted, as far as the ledger knows
    COMMANDS.c.state.in_([_literal(CommandState.QUEUED), _literal(CommandState.SENT)]),
    COMMANDS.c.expires_at.is_not(None),
)
# The server has completed it without its agent, so perhaps because it expired.
IS_PRESUMED_EXPIRED = sa.and_(COMMANDS.c.digest == sa.literal_column(f"'{SERVER}'"), COMMANDS.c.expires_at.is_not(None))
HAS_FAILED = COMMANDS.c.outcome == _literal(Outcome.ERROR)
_OF_OPERATION = COMMANDS.c.operation_id.is_not(None)


def _partial_index(name: str, condition: sa.ColumnElement[bool], *columns: sa.Column[Any]) -> None:
    sa.Index(name, *columns, sqlite_where=condition)


@compiles(sa.schema.CreateIndex, "postgresql")
def _create_partly(create: sa.schema.CreateIndex, compiler: Any, **options: Any) -> str:
    """Add the condition of SQLite's index: `postgresql_where` would import that dialect on SQLite, too."""
    text: str = compiler.visit_create_index(create, **options)
    condition = create.element.dialect_options["sqlite"]["where"]
    if condition is None:
        return text
    return f"{text} WHERE {compiler.sql_compiler.process(condition, include_table=False, literal_binds=True)}"


_partial_index("commands_due", IS_DUE, COMMANDS.c.agent, COMMANDS.c.epoch, COMMANDS.c.number)
_partial_index("commands_with_cancel_due", CANCEL_IS_DUE, COMMANDS.c.agent, COMMANDS.c.created_at)
_partial_index("open_commands_of_agent", IS_OPEN, COMMANDS.c.agent, COMMANDS.c.state)
_partial_index("open_commands_by_time", IS_OPEN, COMMANDS.c.state, COMMANDS.c.created_at)
_partial_index("commands_that_may_expire", MAY_EXPIRE, COMMANDS.c.expires_at)
_partial_index("commands_presumed_expired", IS_PRESUMED_EXPIRED, COMMANDS.c.agent)
_partial_index("failed_commands_by_time", HAS_FAILED, COMMANDS.c.created_at)
_partial_index("commands_by_operation", _OF_OPERATION, COMMANDS.c.operation_id, COMMANDS.c.agent)
# What audits need of completed commands that `acm prune` has removed.
PRUNED_COMMANDS = sa.Table(
    "pruned_commands",
    METADATA,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("agent", sa.String(64), nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("completed_at", sa.Float, nullable=False),
    sa.Column("digest", sa.String(128)),
    sa.Column("outcome", sa.String(8)),
    sa.Column("code", sa.String(64)),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Index("pruned_commands_of_agent", "agent", "epoch", "number"),
)
# What was found in rows whose content is not what was written (broker.ledger.damage).
DAMAGED_ROWS = sa.Table(
    "damaged_rows",
    METADATA,
    sa.Column("table", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(128), primary_key=True),
    sa.Column("agent", sa.String(64), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("found_at", sa.Float, nullable=False),
)
# A command sent to many agents at once: `target` as the user wrote it, `size` agents.
OPERATIONS = sa.Table(
    "operations",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("type", sa.String(128), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
)
GROUP_MEMBERS = sa.Table(
    "group_members",
    METADATA,
    sa.Column("group", sa.String(64), primary_key=True),
    sa.Column("agent", sa.String(64), primary_key=True, index=True),
)
# The blob that apply-centralized-configuration applies on the members of a group.
GROUP_CONFIGURATIONS = sa.Table(
    "group_configurations",
    METADATA,
    sa.Column("group", sa.String(64), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
)
# Unmatched results: they answer no open command, and never replace a result that arrived first.
STRAY_RESULTS = sa.Table(
    "stray_results",
    METADATA,
    sa.Column("agent", sa.String(64), primary_key=True),
    sa.Column("command_id", sa.String(128), primary_key=True),
    sa.Column("digest", sa.String(128), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False, index=True),
)
# Messages of agents that the database refuses, under the hash of their content.
REFUSED_MESSAGES = sa.Table(
    "refused_messages",
    METADATA,
    sa.Column("agent", sa.String(64), primary_key=True),
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("channel", sa.String(32), nullable=False),
    sa.Column("command_id", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
)
# Where each agent's audit journal ended when it was last verified; the user accepted differences up to the accepted
# entry.
AUDITS = sa.Table(
    "audits",
    METADATA,
    sa.Column("agent", sa.String(64), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("verified_at", sa.Float, nullable=False),
    sa.Column("accepted_number", sa.BigInteger),
    sa.Column("accepted_hash", sa.String(64)),
)
# The servers that run or ran on this ledger; broker.ledger.server_lock decides which of them run. `connection_at` is
# since when its connection to the broker is as it is, None if that is not known yet; without a problem it stands.
SERVERS = sa.Table(
    "servers",
    METADATA,
    sa.Column("client_id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("connection_at", sa.Float),
    sa.Column("connection_problem", sa.Text),
)
# What has happened, in the order of commits (broker.ledger.noted_events). A row has the events that one commit wrote
# together, as JSON; `id` is the number of its last one, and each number is one more than that of the event before.
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("items", sa.Text, nullable=False),
)
# Files that agents fetch over MQTT. While one is being stored or removed, it has no sha256 and is not visible.
BLOBS = sa.Table(
    "blobs",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("sha256", sa.String(64), unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("file_name", sa.String(255), nullable=False),
    sa.Column("added_at", sa.Float, nullable=False),
)
BLOB_CHUNKS = sa.Table(
    "blob_chunks",
    METADATA,
    sa.Column("blob", sa.String(64), sa.ForeignKey("blobs.id"), primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
