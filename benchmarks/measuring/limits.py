"""The limits that the machine sets: fsync, commits, signatures, and messages through the broker."""

import os
import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep, thread_time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.measuring.raw_mqtt import broker_rate
from benchmarks.measuring.report import Row

__all__ = ["fsync_us", "insert_us", "limits", "sign_us", "verify_us"]

_FRAME = b"x" * 400


def limits() -> Row:
    """Return all of them; none is a goal."""
    figures: dict[str, float | None] = {
        "fsync of 4 KiB, µs": fsync_us(),
        "row in SQLite, durable, one a commit, µs": insert_us(1, 300),
        "row in SQLite, durable, 100 a commit, µs": insert_us(100),
        "row in SQLite, durable, 500 a commit, µs": insert_us(500),
        "messages/s through Mosquitto": broker_rate(),
        "Ed25519 signature, µs": sign_us(),
        "Ed25519 verification, µs": verify_us(),
    }
    return Row("limits of this machine", figures)


def fsync_us(count: int = 200, pause_s: float = 0.0) -> float:
    """Return the median time of writing and syncing 4 KiB, in microseconds.

    After a pause, it takes two to four times as long as one after the other.
    """
    with tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        descriptor = os.open(Path(directory) / "file", os.O_CREAT | os.O_WRONLY)
        try:
            return _median_us(lambda: _write_and_sync(descriptor), count, pause_s)
        finally:
            os.close(descriptor)


def _write_and_sync(descriptor: int) -> None:
    os.write(descriptor, b"x" * 4096)
    os.fdatasync(descriptor)


def insert_us(per_commit: int, count: int = 5_000) -> float:
    """Return the time of a row of 500 bytes in SQLite, durable, with so many rows in a commit, in microseconds."""
    with tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        connection = sqlite3.connect(Path(directory) / "db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("PRAGMA synchronous = full")
        connection.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, body TEXT)")
        began = monotonic()
        for first in range(0, count, per_commit):
            connection.execute("BEGIN")
            rows = [(f"{number:036d}", "x" * 500) for number in range(first, first + per_commit)]
            connection.executemany("INSERT INTO rows VALUES (?, ?)", rows)
            connection.execute("COMMIT")
        connection.close()
        return (monotonic() - began) / count * 1e6


def sign_us(count: int = 2_000) -> float:
    """Return the processor time of an Ed25519 signature, in microseconds."""
    key = Ed25519PrivateKey.generate()
    return _cpu_us(lambda: key.sign(_FRAME), count)


def verify_us(count: int = 2_000) -> float:
    """Return the processor time of a verification by the library that the agent uses, in microseconds."""
    key = Ed25519PrivateKey.generate()
    signature, public = key.sign(_FRAME), key.public_key()
    return _cpu_us(lambda: public.verify(signature, _FRAME), count)


def _median_us(do: Callable[[], object], count: int, pause_s: float) -> float:
    taken = []
    for _ in range(count):
        sleep(pause_s)
        began = monotonic()
        do()
        taken.append(monotonic() - began)
    return statistics.median(taken) * 1e6


def _cpu_us(do: Callable[[], object], count: int) -> float:
    began = thread_time()
    for _ in range(count):
        do()
    return (thread_time() - began) / count * 1e6
