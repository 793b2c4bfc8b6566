"""Damage of a single row: a disk gives back other bytes than were written, and the database does not see it.

A damaged row is reported, and set aside in DAMAGED_ROWS: no other row must wait for it, and none of it may be lost.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
import sqlalchemy as sa

from broker.contract.codec import encode
from broker.contract.limits import MAX_NUMBER
from broker.contract.messages import Command, Origin, Status
from broker.contract.secret_shapes import mask_shapes
from broker.contract.topics import AGENT_NAME
from broker.ledger.bytes_of_text import DAMAGED_BYTE
from broker.ledger.insert import replace_row
from broker.ledger.outcomes import SERVER
from broker.ledger.records import AgentRecord, CommandRecord
from broker.ledger.renumbering import begin_epoch
from broker.ledger.tables import AGENTS, COMMANDS, DAMAGED_ROWS, Cancel, CommandState, moment, new_agent, utc

__all__ = [
    "DamagedRow",
    "all_damaged_rows",
    "body_check",
    "damage_in_command",
    "damaged_command",
    "decode_or_set_aside",
    "decoded",
    "keep_damaged",
    "placeholder",
    "placeholder_body",
    "repair_agent",
    "state_in",
    "with_sound_columns",
]


_T = TypeVar("_T")
_CHECK_DIGITS = 16
_MAX_CONTENT = 1 << 20
_ROWS_PER_FETCH = 100
_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=253402300799)]  # until the year 9999
_Name = Annotated[str, msgspec.Meta(pattern=rf"^(?!.*{DAMAGED_BYTE})")]


class _CommandColumns(msgspec.Struct):
    epoch: _Number
    number: _Number
    state: CommandState
    cancel: Cancel
    created_at: _Seconds
    completed_at: _Seconds | None
    digest: str | None


_AGENT_COLUMNS: dict[str, Any] = {
    "epoch": _Number,
    "next_number": Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)],
    "store_generation": _Name | None,
    "incarnation": _Name | None,
    "online": bool,
    "seen_at": _Seconds | None,
    "resend_at": _Seconds | None,
    "attempts": Annotated[int, msgspec.Meta(ge=0, le=1 << 20)],
    "name_conflict_at": _Seconds | None,
    "forgotten_at": _Seconds | None,
    "silent_at": _Seconds | None,
}
_AgentColumns = msgspec.defstruct("_AgentColumns", list(_AGENT_COLUMNS.items()))
_AGENT_TEXTS: dict[str, Any] = {"status": Status, "past_incarnations": list[str]}


@dataclass(frozen=True)
class DamagedRow:
    """A damaged row of `table` with the primary key `key`, what is wrong with it, and its content as far as it is read.

    `found_at` is when it was set aside (UTC); None if it is still in its table.
    """

    table: str
    key: str
    agent: str
    reason: str
    content: str
    found_at: datetime | None


def body_check(command_id: str, agent: str, body: str) -> str:
    """Return the check of a command's row: of all that decides what is sent to which agent."""
    return hashlib.sha256(f"{command_id}\0{agent}\0{body}".encode()).hexdigest()[:_CHECK_DIGITS]


def decoded(text: str | None, kind: type[_T]) -> _T | None:
    """Return the JSON in a column as a value of this type, or None if there is none or it is damaged."""
    try:
        return None if text is None else msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, TypeError, UnicodeError):
        return None


def state_in(text: str) -> CommandState:
    """Return the state in a column; a command whose state is damaged may have been sent."""
    return CommandState(text) if text in set(CommandState) else CommandState.SENT


def damage_in_command(record: CommandRecord) -> str | None:
    """Return what is wrong with a row of COMMANDS, or None if it is as it was written."""
    try:
        msgspec.convert(vars(record), _CommandColumns)
        is_written = record.body_check == body_check(record.id, record.agent, record.body)
        if not is_written and msgspec.json.decode(record.body, type=Command).id != record.id:
            return "its command has another id"
    except (msgspec.MsgspecError, TypeError, UnicodeError) as error:
        return f"it cannot be read: {error}"
    if not AGENT_NAME.fullmatch(record.agent):
        return "its agent has no valid name"
    is_open = record.state != CommandState.COMPLETED  # later, the secrets in a body are masked
    if is_open and not is_written and record.body_check is not None:
        return "it is not what was written"
    if record.result is not None and decoded(record.result, dict) is None:
        return "its result cannot be read"
    return None


def placeholder(record: CommandRecord) -> Command:
    """Return what is shown instead of a command that cannot be read."""
    created_at = utc(record.created_at)
    return _placeholder(record.id, created_at)


def placeholder_body(command_id: str, created_at: datetime) -> str:
    """Return the body that takes the place of one that cannot be read."""
    return encode([_placeholder(command_id, created_at)]).decode()


def _placeholder(command_id: str, created_at: datetime) -> Command:
    return Command(command_id, "unreadable", {}, Origin("unreadable", SERVER), created_at)


def keep_damaged(connection: sa.Connection, row: DamagedRow, now: datetime) -> None:
    """Within a transaction, keep the content of a damaged row, and report it."""
    import structlog  # with rich's tracebacks; `acm show` starts without it

    values = {"reason": row.reason, "content": row.content, "found_at": now.timestamp()}
    key = {"table": row.table, "key": row.key, "agent": row.agent}
    replace_row(connection, DAMAGED_ROWS, {**key, **values})
    structlog.get_logger("acm.server").error("damaged_row_set_aside", **key, reason=row.reason)


def decode_or_set_aside(
    connection: sa.Connection, record: AgentRecord, column: str, kind: type[_T], now: datetime
) -> _T | None:
    """Within a transaction, return the JSON in a column of an agent's row; None, and set it aside, if it is damaged."""
    text = getattr(record, column)
    value = decoded(text, kind)
    if text is not None and value is None:
        keep_damaged(connection, _damaged_agent(record, {column: text}), now)
    return value


def with_sound_columns(record: AgentRecord, now: datetime) -> AgentRecord:
    """Return an agent's row with the values of a new one instead of those that were never written."""
    return replace(record, **_repairs(record, now))


def repair_agent(connection: sa.Connection, record: AgentRecord, now: datetime) -> AgentRecord:
    """Within a transaction that has locked the agent's row, repair it; damaged numbers begin a new epoch."""
    repairs = _repairs(record, now)
    if not repairs:
        return record
    keep_damaged(connection, _damaged_agent(record, {name: getattr(record, name) for name in repairs}), now)
    connection.execute(AGENTS.update().where(AGENTS.c.name == record.name).values(repairs))
    numbers = {}
    if {"epoch", "next_number"} & repairs.keys():
        above = 0 if "epoch" in repairs else record.epoch
        epoch, next_number = begin_epoch(connection, record.name, now, above=above)
        numbers = {"epoch": epoch, "next_number": next_number}
    return replace(record, **{**repairs, **numbers})


def all_damaged_rows(connection: sa.Connection, now: datetime) -> list[DamagedRow]:
    """Within a transaction, return the rows that were set aside, and those found by reading all commands and agents."""
    rows = connection.execute(DAMAGED_ROWS.select().order_by(DAMAGED_ROWS.c.found_at))
    found = [DamagedRow(it.table, it.key, it.agent, it.reason, it.content, moment(it.found_at)) for it in rows]
    streamed = {"yield_per": _ROWS_PER_FETCH}
    for row in connection.execute(COMMANDS.select(), execution_options=streamed).mappings():
        record = CommandRecord(**row)
        if (reason := damage_in_command(record)) is not None:
            found.append(damaged_command(record, reason))
    for row in connection.execute(AGENTS.select(), execution_options=streamed).mappings():
        agent = AgentRecord(**row)
        names = [*_repairs(agent, now), *(it for it, kind in _AGENT_TEXTS.items() if _is_damaged(agent, it, kind))]
        if names:
            found.append(_damaged_agent(agent, {name: getattr(agent, name) for name in names}))
    return found


def damaged_command(record: CommandRecord, reason: str) -> DamagedRow:
    """Return a damaged row of COMMANDS, with all of its columns."""
    return DamagedRow(COMMANDS.name, record.id, record.agent, reason, _content(vars(record)), None)


def _damaged_agent(record: AgentRecord, columns: Mapping[str, Any]) -> DamagedRow:
    reason = f"it has values that were never written: {', '.join(columns)}"
    return DamagedRow(AGENTS.name, record.name, record.name, reason, _content(columns), None)


def _content(columns: Mapping[str, Any]) -> str:
    return mask_shapes(repr(columns))[:_MAX_CONTENT]


def _repairs(record: AgentRecord, now: datetime) -> dict[str, Any]:
    """Return new values for the columns of an agent's row that cannot be what was written."""
    if _fits(vars(record), _AgentColumns):
        return {}
    fresh = new_agent(record.name, now)
    return {name: fresh.get(name) for name, kind in _AGENT_COLUMNS.items() if not _fits(getattr(record, name), kind)}


def _is_damaged(record: AgentRecord, column: str, kind: Any) -> bool:
    text = getattr(record, column)
    return text is not None and decoded(text, kind) is None


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True
