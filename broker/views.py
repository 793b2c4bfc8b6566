"""How acm shows what the ledger holds: as JSON rows for programs, as tables and panels for people."""

from datetime import datetime
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from broker.contract.commands import mask_secrets
from broker.contract.messages import JsonObject
from broker.contract.states import Outcome
from broker.ledger import AgentRow, LedgerRow

__all__ = ["agent_json", "agents_table", "command_json", "command_panel", "commands_table"]

_CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], "�")
_KEPT = {ord("\n"): "\n", ord("\t"): "\t"}
_GOOD, _BAD, _OPEN = "green", "red", "yellow"


def command_json(row: LedgerRow) -> JsonObject:
    """Return a command, its state and its result as JSON, secret parameters masked."""
    shown = {
        "id": row.command.id,
        "agent": row.agent,
        "type": row.command.type,
        "state": str(row.state),
        "cancel_requested": row.cancel_requested,
        "command": row.command.to_dict(),
        "completed_at": _iso(row.completed_at),
        "result": row.result,
    }
    masked: JsonObject = mask_secrets(row.command, shown)
    return masked


def agent_json(row: AgentRow) -> JsonObject:
    """Return an agent's last status as JSON, with what the server knows of it."""
    status = row.status.to_dict() if row.status else {"agent": row.name, "online": False}
    return {**status, "seen_at": _iso(row.seen_at), "open_commands": row.open_commands}


def commands_table(rows: list[LedgerRow]) -> Table:
    """Return the commands as a table."""
    whole_id = Column("id", min_width=36)  # it is there to be copied
    table = Table(whole_id, "agent", "type", "created (UTC)", "state", "outcome", title=f"{len(rows)} commands")
    for row in rows:
        created = f"{row.command.created_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(row.command.id, row.agent, _clean(row.command.type), created, str(row.state), _outcome(row))
    return table


def agents_table(rows: list[AgentRow]) -> Table:
    """Return the agents as a table."""
    table = Table("agent", "online", "version", "queue", "running", "open", "last error", title=f"{len(rows)} agents")
    for row in rows:
        status = row.status
        online = Text("yes", _GOOD) if status and status.online else Text("no", _BAD)
        shown = (status.version, str(status.queue_depth), status.running_command, status.last_error) if status else ()
        version, queue, running, error = (_clean(text or "") for text in (shown or ("", "", "", "")))
        table.add_row(row.name, online, version, queue, running, str(row.open_commands), error)
    return table


def command_panel(row: LedgerRow) -> Panel:
    """Return one command with its result; nothing that an agent says can control the terminal."""
    parts: list[RenderableType] = [_facts(row)]
    result = row.result or {}
    if result:
        parts.append(Text(_clean(result["message"]), "bold"))
    for name, value in (("data", result.get("data")), *(result.get("output") or {}).items()):
        if value:
            parts.append(Text(f"{name}: {_clean(_text(value))}"))
    colour = _colour(row)
    return Panel(Group(*parts), title=Text(f"{_clean(row.command.type)} on {row.agent}"), border_style=colour)


def _facts(row: LedgerRow) -> Text:
    text = Text(f"{row.command.id}  ", "dim").append(str(row.state), _colour(row))
    if row.result:
        text.append(" · ").append_text(_outcome(row))
    elif row.cancel_requested:
        text.append(" · cancel requested")
    return text


def _outcome(row: LedgerRow) -> Text:
    result = row.result or {}
    words = " ".join(str(word) for word in (result.get("outcome"), result.get("code")) if word)
    return Text(words, _colour(row))


def _colour(row: LedgerRow) -> str:
    if row.result is None:
        return _OPEN
    return _GOOD if row.result["outcome"] == Outcome.SUCCESS else _BAD


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value)).decode()


def _clean(text: str) -> str:
    return text.translate({**_CONTROL, **_KEPT})


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
