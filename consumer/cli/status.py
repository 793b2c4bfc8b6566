"""acm-agent status: what the agent on this machine does, read from its state directory, whether it runs or not."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from broker.console.output import Printer
from broker.console.output_options import with_printer
from broker.contract.messages import RunningProgress
from broker.durations import rough_duration
from broker.errors import CodedError
from broker.text import counted, encodable, rfc3339
from consumer.cli.enrolment import enrolment_json
from consumer.cli.options import StateDirectory
from consumer.cli.output import titled_facts
from consumer.errors import StoreError
from consumer.store.process_record import RECORD_IS_OLD_S

if TYPE_CHECKING:
    from consumer.store.process_record import Incident, ProcessRecord
    from consumer.store.reader import StoreSummary

__all__ = ["app"]


_T = TypeVar("_T")
_NOT_KNOWN = "not known"
app = typer.Typer()


@app.command(epilog="Example: acm-agent status --state /var/lib/acm")
@with_printer()
def status(printer: Printer, state: StateDirectory) -> None:
    """Show whether the agent runs and is connected, its enrolment, what it holds, and its last errors."""
    from broker.system.logging import configure_logs
    from consumer.store.state_directory import refuse_exposed

    configure_logs("error")  # on stderr: a row that cannot be read is logged
    if not state.is_dir():
        raise StoreError(f"The state directory {state} does not exist.", code="state_directory_missing")
    refuse_exposed(state, reading=True)
    document = _Look(state, datetime.now(UTC)).document()
    printer.show(document, titled_facts(_title(document), _members(document)))


class _Look:
    """One look at a state directory. What cannot be read is None, and named in `unreadable`."""

    def __init__(self, state: Path, now: datetime) -> None:
        from consumer.enrolment.store import EnrolmentDirectory
        from consumer.store.process_record import process_id, process_is_running, read_process_record
        from consumer.store.reader import read_summary
        from consumer.store.state_directory import owner_of

        self._state, self._now = state, now
        self.unreadable: list[str] = []
        self._agent = self._read(lambda: owner_of(state))
        self._is_running = self._read(lambda: process_is_running(state))
        self._pid = process_id(state)
        self._record = self._read(lambda: read_process_record(state))
        self._enrolment = self._read(EnrolmentDirectory(state).current)
        self._summary = self._read(lambda: read_summary(state))

    def _read(self, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except CodedError as error:
            self.unreadable.append(str(error))
        except OSError as error:
            self.unreadable.append(f"{error.filename or self._state} cannot be read: {error.strerror}.")
        return None

    @property
    def _live_record(self) -> "ProcessRecord | None":
        """The record of the process that runs, once that has written one."""
        record = self._record
        return record if self._is_running and record is not None and record.pid == self._pid else None

    def document(self) -> dict[str, Any]:
        """Return what is shown, as JSON."""
        enrolment, summary = self._enrolment, self._summary
        return {
            "agent": self._agent or (enrolment.grant.agent if enrolment else None),
            "state_directory": encodable(str(self._state)),
            "running": self._is_running,
            "pid": self._pid if self._is_running else None,
            "process": _process_json(self._record, self._now) if self._record else None,
            "connection": _connection_json(self._live_record) if self._live_record else None,
            "enrolment": enrolment_json(enrolment) if enrolment else None,
            "queue": _queue_json(summary) if summary else None,
            "running_commands": list(_running_json(summary, self._live_record)) if summary else None,
            "store": _store_json(summary, self._state) if summary else None,
            "incidents": [_incident_json(it) for it in self._record.incidents] if self._record else [],
            "unreadable": self.unreadable,
        }


def _process_json(record: "ProcessRecord", now: datetime) -> dict[str, Any]:
    return {
        "pid": record.pid,
        "version": record.version,
        "incarnation": record.incarnation,
        "started_at": rfc3339(record.started_at),
        "written_at": rfc3339(record.written_at),
        "age_s": round(max(0.0, (now - record.written_at).total_seconds()), 1),
        "clock_behind_s": record.clock_behind_s,
        "ended_at": rfc3339(record.ended_at),
        "end": record.end,
    }


def _connection_json(record: "ProcessRecord") -> dict[str, Any]:
    return {
        "connected": record.connected,
        "broker": record.broker,
        "since": rfc3339(record.connection_since),
        "reason": None if record.connected else record.connection,
    }


def _queue_json(summary: "StoreSummary") -> dict[str, int]:
    return {"accepted": summary.accepted, "running": len(summary.running), "completed": summary.completed}


def _running_json(summary: "StoreSummary", record: "ProcessRecord | None") -> Iterator[dict[str, Any]]:
    """Yield the commands that have begun; of those that began together, first the one that runs, if it is known."""
    first = record.running_command if record else None
    for stored in sorted(summary.running, key=lambda stored: stored.command.id != first):
        progress = record.running_progress if record and stored.command.id == first else None
        yield {
            "id": stored.command.id,
            "type": stored.command.type,
            "started_at": rfc3339(stored.started_at),
            "progress": {"phase": progress.phase, "percent": progress.percent} if progress else None,
        }


def _store_json(summary: "StoreSummary", state: Path) -> dict[str, Any]:
    last = summary.last_sequence
    return {
        "store_generation": summary.generation,
        "epoch": last.epoch if last else None,
        "last_sequence": last.number if last else None,
        "journal_first": summary.anchor.number + 1,
        "journal_last": summary.head.number,
        "bytes": _size_bytes(state / "commands"),
    }


def _size_bytes(store: Path) -> int:
    size = 0
    for path in store.iterdir():
        with suppress(FileNotFoundError):  # the log ends with the last process that uses the database
            size += path.stat().st_size
    return size


def _incident_json(incident: "Incident") -> dict[str, Any]:
    return {"text": incident.text, "since": rfc3339(incident.since), "until": rfc3339(incident.until)}


def _title(document: dict[str, Any]) -> str:
    name, connection = document["agent"] or "The agent", document["connection"]
    if document["running"] is None:
        return f"{name}: it is not known whether it runs."
    if not document["running"]:
        return f"{name} does not run."
    if connection is None:
        return f"{name} runs; it has not written yet whether it is connected."
    return f"{name} runs, and is connected." if connection["connected"] else f"{name} runs, but is not connected."


def _members(document: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    yield "process", list(_process_lines(document))
    if document["connection"]:
        yield "connection", [_connection_line(document["connection"])]
    yield from _enrolment_lines(document["enrolment"])
    yield "queue", [_queue_line(document["queue"])]
    yield "running" if document["running"] else "begun", list(_running_lines(document["running_commands"] or []))
    yield "store", [_store_line(document["store"])]
    yield "errors", [_incident_line(it) for it in _other_incidents(document)] or ["none"]
    if document["unreadable"]:
        yield "unreadable", document["unreadable"]


def _process_lines(document: dict[str, Any]) -> Iterator[str]:
    process, running = document["process"], document["running"]
    if running and (process is None or process["pid"] != document["pid"]):
        yield f"{document['pid'] or _NOT_KNOWN}; the record in status.json is not of this process"
        return
    if process is None:
        yield "none has written a record in status.json"
        return
    age = rough_duration(process["age_s"])
    if running:
        yield f"{process['pid']}, version {process['version']}, since {_time(process['started_at'])}"
        hangs = "; it hangs, or its disk is full" if process["age_s"] > RECORD_IS_OLD_S else ""
        yield f"as of {_time(process['written_at'])} ({age} ago{hangs})"
        if process["clock_behind_s"]:
            yield f"this machine's clock is {rough_duration(process['clock_behind_s'])} behind the server's"
    elif process["ended_at"]:
        yield f"{process['pid']} ended at {_time(process['ended_at'])}: {process['end'] or 'it was stopped'}"
    else:
        written = f"it last wrote at {_time(process['written_at'])} ({age} ago)"
        yield f"{process['pid']} was killed, or the machine went down; {written}"


def _connection_line(connection: dict[str, Any]) -> str:
    since = f"since {_time(connection['since'])}"
    return f"{connection['broker']}, {since}" if connection["connected"] else f"none {since}: {connection['reason']}"


def _enrolment_lines(enrolment: dict[str, Any] | None) -> Iterator[tuple[str, list[str]]]:
    if enrolment is None:
        yield "enrolment", ["none"]
        return
    yield "enrolment", [f"{enrolment['enrolment_id']}, at {enrolment['server']}"]
    until, renewal = _time(enrolment["not_after"]), _time(enrolment["renew_at"])
    left = (datetime.fromisoformat(enrolment["not_after"]) - datetime.now(UTC)).total_seconds()
    state = "it has expired" if enrolment["expired"] else f"{rough_duration(left)} left, renewed from {renewal} on"
    yield "certificate", [f"until {until}: {state}"]


def _queue_line(queue: dict[str, int] | None) -> str:
    if queue is None:
        return _NOT_KNOWN
    waiting = f", {counted(queue['completed'], 'result')} not acknowledged yet" if queue["completed"] else ""
    return f"{queue['accepted']} accepted, {queue['running']} running{waiting}"


def _running_lines(commands: list[dict[str, Any]]) -> Iterator[str]:
    for command in commands[:1]:
        progress = f": {RunningProgress(**command['progress'])}" if command["progress"] else ""
        yield f"{command['id']} {command['type']}, since {_time(command['started_at'])}{progress}"
    if len(commands) > 1:
        yield f"and {len(commands) - 1} more that began with it"
    if not commands:
        yield "none"


def _store_line(store: dict[str, Any] | None) -> str:
    if store is None:
        return _NOT_KNOWN
    number = (
        "no command yet" if store["last_sequence"] is None else f"last number {store['epoch']}/{store['last_sequence']}"
    )
    return f"{number}, journal {store['journal_first']} to {store['journal_last']}, {store['bytes'] / 1e6:.1f} MB"


def _other_incidents(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the incidents without the one that the line of the connection has already."""
    reason = document["connection"] and document["connection"]["reason"]
    return [it for it in document["incidents"] if it["until"] or it["text"] != reason]


def _incident_line(incident: dict[str, Any]) -> str:
    until = f" to {_time(incident['until'])}" if incident["until"] else ""
    return f"{'' if until else 'since '}{_time(incident['since'])}{until}: {incident['text']}"


def _time(text: str) -> str:
    """Return a time of the document for people, to the second."""
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"
