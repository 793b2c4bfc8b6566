"""How much longer a start of the agent's store takes with many tombstones than with none."""

import statistics
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

from consumer.store.opening import open_store
from consumer.store.tombstones import MAX_TOMBSTONES, Gone

__all__ = ["start_ratio"]


_STARTS = 5
_PER_COMMIT = 1000


def start_ratio() -> float:
    """Return the median start with MAX_TOMBSTONES tombstones, divided by the median start with none."""
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        open_store(state, now=_now).close()
        empty = _start_s(state)
        _fill(state)
        return _start_s(state) / empty


def _now() -> datetime:
    return datetime.now(UTC)


def _start_s(state: Path) -> float:
    taken = []
    for _ in range(_STARTS):
        began = monotonic()
        open_store(state, now=_now).close()
        taken.append(monotonic() - began)
    return statistics.median(taken)


def _fill(state: Path) -> None:
    store = open_store(state, now=_now)
    for first in range(0, MAX_TOMBSTONES, _PER_COMMIT):
        gone = [Gone(f"0190f5b2-7b7a-7cc3-98c4-{first + index:012d}", "9" * 64) for index in range(_PER_COMMIT)]
        with store.transaction():
            store._tombstones.add(gone, _now() + timedelta(days=365))
    store.close()
