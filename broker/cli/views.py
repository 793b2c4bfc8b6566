"""How acm shows what the ledger holds: as JSON rows for programs, as tables and panels for people."""

from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from broker.audit.comparison import Verdict
from broker.cli.output import iso, literal
from broker.command_types import parameters_of
from broker.contract.codec import to_json
from broker.contract.commands import mask_secrets
from broker.contract.messages import JsonObject, PendingReversal
from broker.contract.states import Outcome
from broker.ledger.agents import AgentRow
from broker.ledger.blobs import BlobRow
from broker.ledger.commands import LedgerRow
from broker.ledger.operations import Operation, Progress
from broker.text import counted, plain

__all__ = [
    "active_responses_table",
    "agent_json",
    "agents_table",
    "audit_view",
    "blob_json",
    "blobs_table",
    "command_json",
    "command_panel",
    "commands_table",
    "operation_facts",
    "operation_json",
    "operation_view",
    "operations_table",
    "pending_reversals",
]


_GOOD, _BAD, _OPEN = "green", "red", "yellow"


def command_json(row: LedgerRow, last_error: str | None = None) -> JsonObject:
    """Return a command, its state and its result as JSON, secret parameters masked.

    `last_error`, where it is there, is what its agent's last status says went wrong.
    """
    shown = {
        "id": row.command.id,
        "agent": row.agent,
        "type": row.command.type,
        "state": str(row.state),
        "cancel_requested": row.cancel_requested,
        "command": to_json(row.command),
        "completed_at": iso(row.completed_at),
        "result": row.result,
    }
    if last_error is not None:
        shown["agent_last_error"] = last_error
    masked: JsonObject = mask_secrets(row.command, shown, parameters_of(row.command.type))
    return masked


def agent_json(row: AgentRow) -> JsonObject:
    """Return an agent's last status as JSON, with what the server knows of it."""
    status = to_json(row.status) if row.status else {"agent": row.name, "online": False}
    return {**status, "seen_at": iso(row.seen_at), "open_commands": row.open_commands}


def commands_table(rows: list[LedgerRow]) -> Table:
    """Return the commands as a table."""
    whole_id = Column("id", min_width=36)  # it is there to be copied
    table = Table(whole_id, "agent", "type", "created (UTC)", "state", "outcome", title=counted(len(rows), "command"))
    for row in rows:
        created = f"{row.command.created_at:%Y-%m-%d %H:%M:%S}"
        words = (row.command.id, row.agent, row.command.type, created, row.state)
        table.add_row(*(literal(word) for word in words), _outcome(row))
    return table


def agents_table(rows: list[AgentRow]) -> Table:
    """Return the agents as a table."""
    title = counted(len(rows), "agent")
    table = Table("agent", "online", "version", "queue", "running", "open", "last error", title=title)
    for row in rows:
        status = row.status
        online = Text("yes", _GOOD) if status and status.online else Text("no", _BAD)
        shown = (status.version, str(status.queue_depth), status.running_command, status.last_error) if status else ()
        version, queue, running, error = (literal(text or "") for text in (shown or ("", "", "", "")))
        table.add_row(literal(row.name), online, version, queue, running, str(row.open_commands), error)
    return table


def blob_json(row: BlobRow) -> JsonObject:
    """Return a blob as JSON: its artifact, and what it was made from."""
    return {**vars(row.artifact), "file_name": row.file_name, "added_at": iso(row.added_at)}


def blobs_table(rows: list[BlobRow]) -> Table:
    """Return the blobs as a table."""
    whole_name = Column("sha256", min_width=64)  # it is there to be copied
    table = Table(whole_name, Column("bytes", justify="right"), "added (UTC)", "file", title=counted(len(rows), "blob"))
    for row in rows:
        added = f"{row.added_at:%Y-%m-%d %H:%M}"
        table.add_row(literal(row.artifact.sha256), str(row.artifact.size), added, literal(row.file_name))
    return table


def audit_view(agent: str, verdict: Verdict) -> RenderableType:
    """Return what came of comparing an agent's journal with the ledger; at most 20 differences are shown."""
    differences = verdict.differences
    count = counted(len(differences), "difference") if differences else "it agrees with the ledger"
    times = [f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "?" for moment in (verdict.since, verdict.until)]
    entries, commands = counted(verdict.entries, "entry", "entries"), counted(verdict.commands, "command")
    facts = f"{entries} on {commands}, {times[0]} to {times[1]} UTC"
    lines = [literal(f"The journal of {agent}: {facts}: {count}.")]
    lines += [literal(f"  {difference.message}") for difference in differences[:20]]
    return Group(*lines, *(literal(f"  note: {note}") for note in verdict.notes))


def pending_reversals(row: AgentRow) -> tuple[PendingReversal, ...]:
    """Return what the agent's last status says is active and will be taken back."""
    return row.status.pending_reversals if row.status else ()


def active_responses_table(rows: list[AgentRow]) -> Table:
    """Return what is active on these agents as a table; nothing that an agent says can control the terminal."""
    active = counted(sum(row.status.pending_reversal_count for row in rows if row.status), "active response")
    table = Table("agent", "script", "keys", "reverses at (UTC)", "state", "command", title=active)
    for row in rows:
        for it in pending_reversals(row):
            words = (row.name, it.script, ", ".join(it.keys), f"{it.reverses_at:%Y-%m-%d %H:%M:%S}", it.state)
            table.add_row(*(literal(word) for word in (*words, it.command_id)))
    return table


def command_panel(row: LedgerRow, last_error: str | None = None) -> Panel:
    """Return one command with its result, or its agent's last error; neither can control the terminal."""
    parts: list[RenderableType] = [_facts(row)]
    result = row.result or {}
    if result:
        parts.append(Text(plain(result["message"]), "bold"))
    if last_error is not None:
        parts.append(Text(f"last error of {row.agent}: {plain(last_error)}"))
    for name, value in (("data", result.get("data")), *(result.get("output") or {}).items()):
        if value:
            parts.append(Text(f"{plain(name)}: {plain(_text(value))}"))
    colour = _colour(row)
    return Panel(Group(*parts), title=literal(f"{row.command.type} on {row.agent}"), border_style=colour)


def _facts(row: LedgerRow) -> Text:
    text = Text(f"{plain(row.command.id)}  ", "dim").append(str(row.state), _colour(row))
    if row.result:
        text.append(" · ").append_text(_outcome(row))
    elif row.cancel_requested:
        text.append(" · cancel requested")
    return text


def _outcome(row: LedgerRow) -> Text:
    result = row.result or {}
    words = " ".join(str(word) for word in (result.get("outcome"), result.get("code")) if word)
    return Text(plain(words), _colour(row))


def _colour(row: LedgerRow) -> str:
    if row.result is None:
        return _OPEN
    return _GOOD if row.result.get("outcome") == Outcome.SUCCESS else _BAD


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value)).decode()


def operation_facts(operation: Operation) -> JsonObject:
    """Return an operation as JSON, without its commands."""
    return {
        "id": operation.id,
        "type": operation.command_type,
        "target": operation.target,
        "size": operation.size,
        "created_at": iso(operation.created_at),
    }


def operation_json(operation: Operation, progress: Progress, rows: list[LedgerRow]) -> JsonObject:
    """Return an operation, its counts by state and its commands as JSON."""
    commands = [command_json(row) for row in rows]
    return {"operation": operation_facts(operation), "counts": progress.counts(), "commands": commands}


def operations_table(operations: list[Operation]) -> Table:
    """Return the operations as a table."""
    whole_id = Column("id", min_width=36)
    table = Table(whole_id, "type", "for", "agents", "created (UTC)", title=counted(len(operations), "operation"))
    for operation in operations:
        created = f"{operation.created_at:%Y-%m-%d %H:%M:%S}"
        words = (operation.id, operation.command_type, operation.target, str(operation.size), created)
        table.add_row(*(literal(word) for word in words))
    return table


def operation_view(operation: Operation, progress: Progress, rows: list[LedgerRow]) -> RenderableType:
    """Return an operation's counts, and each agent's outcome with the first words of its message."""
    counts = ", ".join(f"{count} {state}" for state, count in progress.counts().items())
    title = literal(f"{operation.command_type} for {operation.target}: {counts}")
    table = Table("agent", Column("id", min_width=36), "state", "outcome", "message", title=title)
    for row in sorted(rows, key=lambda row: row.agent):
        message = literal((row.result or {}).get("message", ""))
        words = (row.agent, row.command.id, row.state)
        table.add_row(*(literal(word) for word in words), _outcome(row), message)
    return table
