"""Takes active responses back when their time has come: one after another, and each exactly once."""

import contextlib
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import structlog

from broker.errors import ExposedFileError
from broker.system.files import remove_tree
from consumer.active_response.allow_list import check_executable
from consumer.active_response.detached_run import Run, RunEnd
from consumer.active_response.records import Entry, ResponseRecords, Reversal
from consumer.active_response.script_runner import ScriptRunner
from consumer.active_response.wazuh_protocol import write_line
from consumer.errors import ConsumerError, StoreError
from consumer.observer import Observer
from consumer.ports import Clock

__all__ = [
    "Reversals",
    "reversal_of",
]


_log = structlog.get_logger(__name__)
_WAITS_S = (5.0, 30.0, 180.0, 900.0)  # after the first, second … failure; then no more until the agent's next start
_YIELD_S = 0.01  # lets a command that waits for its turn have it
_PAUSE_S = 5.0  # after a fault of our own, such as a full disk
_STEP = "execute-active-response.reversal-"


def reversal_of(entry: Entry) -> Reversal:
    """Return the reversal of an entry that has one."""
    assert entry.reversal is not None
    return entry.reversal


class Reversals:
    """Runs what is due, on a lane of its own, so that nothing else waits for it. A Chore of the agent.

    A run that was begun is never begun again, by this process or a later one, unless it was cut off (power loss, kill).
    """

    def __init__(
        self,
        book: ResponseRecords,
        workshop: ScriptRunner,
        runs: Path,
        clock: Clock,
        observer: Observer,
        lane: Callable[[Callable[[], None]], None],
        wake: Callable[[], None],
    ) -> None:
        self._book = book
        self._workshop = workshop
        self._runs = runs
        self._clock = clock
        self._observer = observer
        self._lane = lane
        self._wake = wake
        self._working = False
        self._not_before = 0.0

    def recover(self) -> None:
        """Give those that failed too often another chance, and clear away runs that nobody waits for."""
        for entry in self._book.pending():
            reversal = reversal_of(entry)
            if reversal.try_at is None:
                again = replace(reversal, try_at=self._clock.now(), attempts=0)
                with contextlib.suppress(StoreError):  # a full disk must not keep the agent from starting
                    self._book.keep(replace(entry, reversal=again))
        wanted = {reversal_of(entry).run for entry in self._book.pending()}
        for directory in self._runs.glob("*"):
            if directory.name not in wanted:
                _clear_away(directory)

    def step(self) -> None:
        """Begin to work on what is due, unless that goes on already; never waits."""
        if not self._working and self._clock.monotonic() >= self._not_before and self._is_due():
            self._working = True
            self._lane(self._work)

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) a reversal is due next."""
        next_try = self._book.next_try()
        if self._working or next_try is None:
            return None
        left = (next_try - self._clock.now()).total_seconds()
        return max(self._not_before, self._clock.monotonic() + max(0.0, left))

    def settle_begun(self) -> None:
        """Bring to an end what an earlier process had begun; call it in a turn of the workshop."""
        for entry in self._book.pending():
            if reversal_of(entry).run:
                self._reverse(entry)

    def _is_due(self) -> bool:
        next_try = self._book.next_try()
        return next_try is not None and next_try <= self._clock.now()

    def _next_due(self) -> Entry | None:
        now = self._clock.now()
        return next((it for it in self._book.pending() if it.next_try and it.next_try <= now), None)

    def _work(self) -> None:
        pause = threading.Event()
        try:
            while self._is_due():
                with self._workshop.turn():
                    due = self._next_due()  # a command may have renewed it before the turn came
                    if due is not None:
                        self._reverse(due)
                self._wake()
                pause.wait(_YIELD_S)
        except StoreError as error:
            _log.error("reversal_not_recorded", reason=str(error))
            self._not_before = self._clock.monotonic() + _PAUSE_S
        except Exception:
            _log.exception("reversals_broke_down")
            self._not_before = self._clock.monotonic() + _PAUSE_S
        finally:
            self._working = False
            self._wake()

    def _reverse(self, entry: Entry) -> None:
        try:
            entry, end = self._run(entry)
            failure = None if end.good else _in_words(end)
        except StoreError:
            raise
        except (ConsumerError, ExposedFileError, OSError) as error:
            failure = str(error)
        self._observer.reached(f"{_STEP}ended")
        run = reversal_of(entry).run
        if failure is None:
            now = self._clock.now()
            self._book.keep(replace(entry, reversal=None, reversed_at=now, changed_at=now))
            self._observer.reached(f"{_STEP}done")
        else:
            self._book.keep(replace(entry, reversal=self._after_failure(reversal_of(entry), failure)))
            _log.warning("reversal_failed", script=entry.script, keys=entry.keys, reason=failure)
        if run:
            _clear_away(self._runs / run)

    def _run(self, entry: Entry) -> tuple[Entry, RunEnd]:
        """Run the script, or wait for the run that an earlier process has begun."""
        reversal = reversal_of(entry)
        run = Run(self._runs / reversal.run, self._clock, self._workshop.confinement) if reversal.run else None
        if run is None or run.is_lost:
            directory = self._workshop.prepare().directory
            check_executable(directory, entry.executable)
            name = uuid.uuid4().hex
            entry = self._book.keep(replace(entry, reversal=replace(reversal, run=name)))
            self._observer.reached(f"{_STEP}recorded")
            run = Run(self._runs / name, self._clock, self._workshop.confinement)
            line = write_line(reversal.message, "delete")
            run.begin(self._workshop.path_of(entry.executable), line, self._workshop.home)
            self._observer.reached(f"{_STEP}begun")
        return entry, run.wait(self._workshop.deadline())

    def _after_failure(self, reversal: Reversal, failure: str) -> Reversal:
        attempts = reversal.attempts + 1
        try_at = None
        if attempts <= len(_WAITS_S):
            try_at = self._clock.now() + timedelta(seconds=_WAITS_S[attempts - 1])
        return replace(reversal, run=None, attempts=attempts, try_at=try_at, failure=failure)


def _clear_away(run: Path) -> None:
    with contextlib.suppress(OSError):  # else it is done at the next start
        remove_tree(run)


def _in_words(end: RunEnd) -> str:
    if end.overdue:
        return "The script did not end in time and was ended."
    if end.exit_status is None:
        return "The script was cut off."
    said = f": {end.stderr.strip()[-200:]}" if end.stderr.strip() else ""
    return f"The script ended with exit status {end.exit_status}{said}."
