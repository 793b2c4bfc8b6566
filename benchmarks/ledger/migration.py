"""The migration of a large ledger of a version that has landed: how long it takes, and an interrupted one."""

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from time import monotonic

from benchmarks.measuring.goals import Goal
from benchmarks.measuring.report import Row
from broker.ledger.migrations import SCHEMA_VERSION

__all__ = ["migration"]

_LANDED = Path("tests/contract/landed")
_OPEN = "import sys; from broker.app.factories import open_database; open_database(sys.argv[1]).close()"


def migration(count: int) -> Row:
    """Open a ledger of `count` commands of the newest landed version, once to the end and once interrupted."""
    landed = max(_LANDED.glob("*/ledger.db"), key=_version)
    row = Row(f"migration of a ledger of {count:,} commands, of version {_version(landed)}")
    with tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        old, copy = Path(directory) / "old.db", Path(directory) / "copy.db"
        shutil.copyfile(landed, old)
        _multiply(old, count)
        shutil.copyfile(old, copy)
        took = _migrate(copy, None)
        shutil.copyfile(old, copy)
        _migrate(copy, took / 2)
        interrupted_at = _version(copy)
        again = _migrate(copy, None)
        row.figures = {
            "to version": SCHEMA_VERSION,
            "whole migration, s": took,
            "version after an interruption at half the time": interrupted_at,
            "rest after the interruption, s": again,
        }
        kept = _count(copy) == _count(old) and _version(copy) == SCHEMA_VERSION
    row.goals = [Goal(f"{row.title}: complete after an interruption", float(kept), 1)]
    return row


def _migrate(path: Path, kill_after_s: float | None) -> float:
    began = monotonic()
    process = subprocess.Popen([sys.executable, "-c", _OPEN, f"sqlite:///{path}"])
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        process.kill()
    code = process.wait()
    assert kill_after_s is not None or code == 0, "the ledger could not be opened"
    return monotonic() - began


def _multiply(path: Path, count: int) -> None:
    """Copy a completed command of the ledger under other ids and numbers, until it has `count` more."""
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute("PRAGMA table_info(commands)")]
    new = {"id": "printf('%s-%08d', id, n)", "number": "1000000 + n", "created_at": "created_at + n / 1000.0"}
    values = ", ".join(new.get(name, f'"{name}"') for name in names)
    listed = ", ".join(f'"{name}"' for name in names)
    connection.execute(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
        f" INSERT INTO commands ({listed}) SELECT {values} FROM numbers,"
        " (SELECT * FROM commands WHERE state = 'completed' AND result IS NOT NULL LIMIT 1)",
        (count,),
    )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _version(path: Path) -> int:
    return int(_value(path, "SELECT version FROM schema_version"))


def _count(path: Path) -> int:
    return int(_value(path, "SELECT count(*) FROM commands"))


def _value(path: Path, query: str) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()
