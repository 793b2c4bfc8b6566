"""The agent's process: whether it runs and is connected, and what it reports itself."""

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta

from broker.durations import rough_duration
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok
from consumer.doctor.patient import Patient
from consumer.store.process_record import (
    RECORD_IS_OLD_S,
    ProcessRecord,
    live_record,
    process_id,
    process_is_running,
    read_process_record,
)

__all__ = ["check_process"]


NOT_RUNNING = Fault(
    "agent_not_running",
    Level.FAIL,
    "No agent runs on the state directory, so its commands wait.",
    "systemctl start acm-agent (or start `acm-agent run` otherwise); its log says why it ends: journalctl -u acm-agent",
)
HANGS = Fault(
    "agent_hangs",
    Level.FAIL,
    "The agent runs, but has written nothing for minutes: it is stopped, its loop hangs, or its disk is full.",
    "systemctl restart acm-agent (or end the process that the sentence names, and start it again)",
)
NOT_CONNECTED = Fault(
    "agent_not_connected",
    Level.FAIL,
    "The agent runs, but has no connection to its broker.",
    "See the findings of the broker and of TLS; journalctl -u acm-agent has each attempt.",
)
REPORTS = Fault(
    "agent_reports_problem",
    Level.WARN,
    "The running agent reports something that is wrong.",
    "Follow the sentence; docs/operations.md (Troubleshooting) has more.",
)
_CHECK = "process"


def check_process(patient: Patient, now: datetime) -> Iterator[Finding]:
    """Look at the lock of the state directory, and at what the process has written of itself."""
    state = patient.state
    if state is None or not state.is_dir():
        yield NOT_RUNNING.found(_CHECK, f"There is no state directory{f' {state}' if state else ''}.")
        return
    if not process_is_running(state):
        start = shlex.join(["acm-agent", "run", "--state", str(state)])
        fix = f"systemctl start acm-agent (or: {start}); its log says why it ends: journalctl -u acm-agent"
        yield NOT_RUNNING.found(_CHECK, f"No agent runs on {state}{_how_it_ended(patient)}.", fix=fix)
        return
    record = live_record(state)
    if record is None:
        yield NOT_CHECKED.found(_CHECK, f"Process {process_id(state)} holds {state}, but has written no record yet.")
        return
    yield from _of(record, now - record.written_at)


def _how_it_ended(patient: Patient) -> str:
    assert patient.state is not None
    record = read_process_record(patient.state)
    if record is None:
        return ""
    if record.ended_at is None:
        return f": process {record.pid} was killed after {record.written_at:%Y-%m-%d %H:%M:%S} UTC"
    reason = f": {record.end.rstrip('.')}" if record.end else "; it was stopped"
    return f": process {record.pid} ended at {record.ended_at:%Y-%m-%d %H:%M:%S} UTC{reason}"


def _of(record: ProcessRecord, age: timedelta) -> Iterator[Finding]:
    if age.total_seconds() > RECORD_IS_OLD_S:
        yield HANGS.found(
            _CHECK, f"Process {record.pid} has written nothing for {rough_duration(age.total_seconds())}."
        )
    elif record.connected:
        yield ok(_CHECK, f"Process {record.pid} runs, and is connected to {record.broker}.")
    else:
        yield NOT_CONNECTED.found(
            _CHECK,
            f"Process {record.pid} runs, but has not been connected since "
            f"{record.connection_since:%Y-%m-%d %H:%M:%S} UTC: {record.connection}",
        )
    for incident in record.incidents:
        if incident.until is None and incident.text != record.connection:
            yield REPORTS.found(_CHECK, incident.text)
