"""How long each call takes when a ledger grows, beside how long it took at the first size."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ledger.loop import AGENTS_IN_LEDGER, Times, loop_times, open_some, query_times, statement_times
from benchmarks.measuring.commands import agent_names
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.ledger_rows import add_completed
from benchmarks.measuring.report import Row
from benchmarks.server.databases import postgresql
from broker.app.factories import open_ledger
from broker.ledger.ledger import Ledger

__all__ = ["growth"]

_MOST = 1.5
_NOISE_MS = 0.2  # less may be noise
_MOST_BYTES = 800


def growth(database: str, sizes: Sequence[int]) -> Row:
    """Measure a ledger in `sqlite` or `postgresql` at each of these numbers of finished commands."""
    row = Row(f"{database}: {', '.join(f'{size:,}' for size in sizes)} finished commands")
    times: list[Times] = []
    statements: list[Times] = []
    bytes_each: list[float] = []
    with _ledger_in(database) as (ledger, size_in_bytes):
        open_some(ledger)
        before = 0
        for size in sizes:
            bytes_before = size_in_bytes()
            add_completed(ledger, agent_names(AGENTS_IN_LEDGER), before + 1, size)
            bytes_each.append((size_in_bytes() - bytes_before) / (size - before))
            before = size
            with statement_times(ledger) as of_statements:
                of_loop = loop_times(ledger)
            times.append(of_loop | query_times(ledger))
            statements.append(of_statements)
    for name in times[0]:
        row.figures |= {f"{name}, ms at {size:,}": its[name] for size, its in zip(sizes, times, strict=True)}
        row.goals.append(Goal(f"{database}: {name}, to {sizes[0]:,}", _growth(times, name), _MOST, True))
    common = [text for text in statements[0] if all(text in its for its in statements)]
    worst = max(common, key=lambda text: _growth(statements, text))
    row.goals.append(Goal(f"{database}: slowest growing statement", _growth(statements, worst), _MOST, True))
    row.detail = {"statements_ms": {text: [its[text] for its in statements] for text in common}, "worst": worst}
    row.figures["bytes a finished command"] = bytes_each[-1]
    row.goals.append(Goal(f"{database}: bytes a finished command", bytes_each[-1], _MOST_BYTES, True))
    return row


def _growth(times: Sequence[Times], name: str) -> float:
    """Return the largest ratio to the first size."""
    first = times[0][name]
    return max(1.0 if its[name] - first < _NOISE_MS else its[name] / first for its in times)


@contextmanager
def _ledger_in(database: str) -> Iterator[tuple[Ledger, Callable[[], int]]]:
    """Yield a new ledger, and what brings it into the state of rest and returns its bytes."""
    if database == "sqlite":
        with tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
            path = Path(directory) / "ledger.db"
            with open_ledger(f"sqlite:///{path}") as ledger:
                yield ledger, lambda: _checkpointed(path)
        return
    with postgresql() as instance:
        url = instance.new_database()
        with open_ledger(url) as ledger, instance.connect(url) as connection:

            def vacuumed() -> int:
                connection.execute("VACUUM ANALYZE")
                found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
                assert found
                return int(found[0])

            yield ledger, vacuumed


def _checkpointed(path: Path) -> int:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.stat().st_size
