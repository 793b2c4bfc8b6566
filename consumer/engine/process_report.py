"""Keeps `status.json` in the state directory current: what this process knows of itself, for who looks at it."""

import contextlib
import os
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from broker.contract.messages import Status
from broker.contract.states import Problem
from broker.errors import CodedError
from broker.text import encodable
from consumer.ports import Clock
from consumer.store.process_record import Incident, ProcessRecord, write_process_record

__all__ = ["ProcessReport"]


_KEPT = 10


class _Connection(Protocol):
    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client."""

    @property
    def summary(self) -> str:
        """Whether it is connected, or why not, in one sentence."""

    @property
    def last_error(self) -> str | None:
        """Why the last connection failed or ended; None while one stands."""


class _StatusSource(Protocol):
    @property
    def last(self) -> Status | None:
        """The status that was last made to be published."""

    def current_problems(self) -> Mapping[Problem, str]:
        """Return a sentence for each thing that is wrong now."""


class ProcessReport:
    """A consumer.ports.BackgroundTask, and a context manager around the life of the process.

    The file is written when the agent has made another status to publish, which it does at most every two seconds for
    commands that come and go, and at least every five minutes; and when the connection has changed. So the cost of a
    command does not grow by it. A file that cannot be written stays as it was: its readers see how old it is.
    """

    def __init__(self, state: Path, status: _StatusSource, connection: _Connection, clock: Clock, broker: str) -> None:
        self._state, self._broker = state, broker
        self._status, self._connection, self._clock = status, connection, clock
        self._started_at = self._connection_since = clock.now()
        self._seen: tuple[Status | None, bool, str] | None = None
        self._incidents = _Incidents()

    def step(self) -> None:
        """Write the file if something has changed."""
        seen = (self._status.last, self._connection.connected, self._connection.summary)
        before = self._seen
        if before is not None and seen[0] is before[0] and seen[1:] == before[1:]:
            return
        if before is None or seen[1] != before[1]:
            self._connection_since = self._clock.now()
        self._seen = seen
        self._write()

    def next_due(self) -> float | None:
        """Return None: it is not urgent, and the loop runs every two seconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write that the process ends, and for which error."""
        reason = str(error) if error is None or isinstance(error, CodedError) else f"{type(error).__name__}: {error}"
        self._write(ended_at=self._clock.now(), end=encodable(reason) if error is not None else None)

    def _write(self, *, ended_at: datetime | None = None, end: str | None = None) -> None:
        status, connection, now = self._status.last, self._connection, self._clock.now()
        if status is None:
            return
        summary = encodable(connection.summary)
        is_failure = connection.last_error is not None and not connection.connected
        problems = self._status.current_problems().values()
        self._incidents.observe([*([summary] if is_failure else []), *problems], now)
        record = ProcessRecord(
            pid=os.getpid(),
            version=status.version,
            incarnation=status.incarnation,
            started_at=self._started_at,
            written_at=now,
            broker=self._broker,
            connected=connection.connected and ended_at is None,
            connection=summary,
            connection_since=self._connection_since,
            running_command=status.running_command,
            running_progress=status.running_progress,
            clock_behind_s=status.clock_behind_s,
            incidents=self._incidents.all(),
            ended_at=ended_at,
            end=end,
        )
        with contextlib.suppress(OSError):
            write_process_record(self._state, record)


class _Incidents:
    """What is wrong, and the last ones of what was."""

    def __init__(self) -> None:
        self._open: dict[str, Incident] = {}
        self._ended: deque[Incident] = deque(maxlen=_KEPT)

    def observe(self, sentences: Sequence[str], now: datetime) -> None:
        """Note that these are wrong now, and nothing else."""
        for text in [text for text in self._open if text not in sentences]:
            self._ended.append(Incident(text, self._open.pop(text).since, now))
        for text in sentences:
            self._open.setdefault(text, Incident(text, now))

    def all(self) -> tuple[Incident, ...]:
        """Return those that last, then the others, the newest first."""
        return (*self._open.values(), *reversed(self._ended))
