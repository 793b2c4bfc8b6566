"""The command store: whether it can be read and is whole, and whether one was set aside."""

import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from broker.system.findings import Fault, Finding, Level, ok
from broker.text import counted
from consumer.doctor.patient import Patient
from consumer.errors import StoreDamaged, StoreError
from consumer.store.damage import DAMAGE_CODES, primary_code
from consumer.store.reader import read_summary, refuse_damaged_store
from consumer.store.state_directory import STORE_MADE

__all__ = ["check_store"]


VANISHED = Fault(
    "agent_store_vanished",
    Level.FAIL,
    "There was a command store, but it is gone: what it held ends as `interrupted`.",
    "Find out what removed `commands` in the state directory, then: systemctl restart acm-agent (it begins a new one)",
)
DAMAGED = Fault(
    "agent_store_damaged",
    Level.FAIL,
    "The database of the command store is damaged.",
    "Look for errors of the disk with `dmesg`, then: systemctl restart acm-agent (it sets the store aside)",
)
UNREADABLE = Fault(
    "agent_store_unreadable",
    Level.FAIL,
    "The command store cannot be read, for another reason than damage.",
    "Look for errors of the disk with `dmesg`, and for a process that locks the file: fuser STATE/commands/cache.db",
)
SET_ASIDE = Fault(
    "agent_store_set_aside",
    Level.WARN,
    "A damaged command store was set aside earlier.",
    "Look for errors of the disk with `dmesg`; remove what was set aside once it is not needed: rm -r PATH",
)
_CHECK = "store"


def check_store(patient: Patient) -> Iterator[Finding]:
    """Read the store in one snapshot, as it is, and let SQLite look at each page."""
    state = patient.state
    if state is None or not state.is_dir():
        return
    try:
        summary = read_summary(state)
        if summary is not None:
            refuse_damaged_store(state)
    except StoreDamaged as error:
        yield DAMAGED.found(_CHECK, str(error))
    except StoreError as error:
        yield _unreadable(state, error)
    else:
        if summary is not None:
            held = counted(summary.accepted + len(summary.running), "command")
            results = counted(summary.completed, "result")
            yield ok(_CHECK, f"The command store is whole; it holds {held} and {results} for the server.")
        elif (state / STORE_MADE).exists():
            yield VANISHED.found(_CHECK, f"{state}/commands is gone.")
        else:
            yield ok(_CHECK, "There is no command store yet: the agent's first start makes it.")
    for aside in sorted(state.glob("commands.damaged-*")):
        remove = shlex.join(["rm", "-r", str(aside)])
        yield SET_ASIDE.found(
            _CHECK, f"{aside} was damaged.", fix=f"Look for errors of the disk with `dmesg`, then: {remove}"
        )


def _unreadable(state: Path, error: StoreError) -> Finding:
    if _is_damage(error.__cause__):
        return DAMAGED.found(_CHECK, str(error))
    file = shlex.quote(str(state / "commands" / "cache.db"))
    fix = f"Look for errors of the disk with `dmesg`, and for a process that locks the file: fuser {file}"
    return UNREADABLE.found(_CHECK, str(error), fix=fix)


def _is_damage(cause: BaseException | None) -> bool:
    """Return whether the agent, too, would take it for damage: of the database, or of its head row."""
    if isinstance(cause, sqlite3.Error):
        return primary_code(cause) in DAMAGE_CODES
    return isinstance(cause, KeyError | ValueError)
