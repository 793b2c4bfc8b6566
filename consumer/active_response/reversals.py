"""Reverses active responses when they are due: one after another, and each exactly once."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from broker.errors import ExposedFileError
from broker.system.log_throttle import LogThrottle
from broker.system.threads import is_exhaustion
from consumer.active_response.allow_list import check_executable
from consumer.active_response.detached_run import Run, RunEnd
from consumer.active_response.records import ResponseRecord, ResponseRecords, Reversal
from consumer.active_response.script_runner import ScriptRunner
from consumer.active_response.wazuh_protocol import write_line
from consumer.errors import ConsumerError, StoreError
from consumer.observer import Observer
from consumer.ports import Clock
from consumer.system.clock import Boot
from consumer.system.confinement import LauncherFailed
from consumer.system.interpreter import interpreter_problem
from consumer.system.leftovers import Leftovers

__all__ = [
    "Reversals",
    "reversal_of",
]


_log = structlog.get_logger(__name__)
_WAITS_S = (5.0, 30.0, 180.0, 900.0)  # after the first, second … failure; then not again until the agent's next start
_YIELD_S = 0.01  # lets a waiting command run its script between two reversals
_RETRY_AFTER_S = 5.0  # after an error of the agent, such as a full disk
_NOT_FOUND = 127
_STEP = "execute-active-response.reversal-"


def reversal_of(record: ResponseRecord) -> Reversal:
    """Return the reversal of a record that has one."""
    assert record.reversal is not None
    return record.reversal


@dataclass(frozen=True)
class _Next:
    """When the next of some reversals is due: within the boot in which it was recorded by the boot's clock.

    After a reboot the wall clock decides; but it may have been wrong then or be wrong now, so no effect lasts longer
    than its whole timeout after the agent's start.
    """

    boot_due: float | None = None
    wall: datetime | None = None
    longest_s: float | None = None

    @classmethod
    def of(cls, records: Iterable[ResponseRecord], boot_id: str) -> "_Next":
        boot_dues, walls, longest = [], [], []
        for record in records:
            reversal = reversal_of(record)
            if reversal.run:
                boot_dues.append(0.0)
            elif reversal.boot_due is not None and reversal.boot_id == boot_id:
                boot_dues.append(reversal.boot_due)
            elif reversal.try_at is not None:
                walls.append(reversal.try_at)
                longest.append(max(0.0, (reversal.due_at - record.changed_at).total_seconds()))
        return cls(min(boot_dues, default=None), min(walls, default=None), min(longest, default=None))

    def left(self, since_boot: float, now: datetime, since: float) -> float | None:
        """Return the seconds until then; `since` is when the agent started, in seconds after the boot."""
        lefts = []
        if self.boot_due is not None:
            lefts.append(self.boot_due - since_boot)
        if self.wall is not None and self.longest_s is not None:
            lefts.append(min((self.wall - now).total_seconds(), since + self.longest_s - since_boot))
        return min(lefts, default=None)


class Reversals:
    """Runs the reversals that are due, on a separate thread. A BackgroundTask of the agent.

    This process and later ones start a run only once, unless it is killed or the machine loses power.
    """

    def __init__(
        self,
        records: ResponseRecords,
        runner: ScriptRunner,
        runs: Path,
        clock: Clock,
        observer: Observer,
        spawn: Callable[[Callable[[], None]], None],
        wake: Callable[[], None],
        boot: Boot,
        leftovers: Leftovers,
    ) -> None:
        self._records = records
        self._leftovers = leftovers
        self._runner = runner
        self._runs = runs
        self._clock = clock
        self._observer = observer
        self._spawn = spawn
        self._wake = wake
        self._boot = boot
        self._since = boot.seconds()
        self._next: tuple[tuple[ResponseRecord, ...], _Next] = ((), _Next())
        self._working = False
        self._not_before = 0.0
        self._throttle = LogThrottle(clock.monotonic)

    def recover(self) -> None:
        """Reschedule the reversals that had failed too often, and delete runs that are no longer needed."""
        for record in self._records.pending():
            reversal = reversal_of(record)
            if reversal.try_at is None:
                again = replace(self.due_in(0.0, reversal), attempts=0)
                with contextlib.suppress(StoreError):  # the agent must start even if the disk is full
                    self._records.save(replace(record, reversal=again))
        wanted = {reversal_of(record).run for record in self._records.pending()}
        if self._records.unreadable:
            return  # which may need any of the runs
        for directory in self._runs.glob("*"):
            if directory.name not in wanted:
                self._leftovers.remove(directory)

    def step(self) -> None:
        """Start the reversals that are due, unless some are running already; never blocks."""
        if not self._working and self._clock.monotonic() >= self._not_before and self._is_due():
            self._working = True
            try:
                self._spawn(self._work)
            except RuntimeError as error:  # no thread can be had now
                self._working = False
                self._not_before = self._clock.monotonic() + _RETRY_AFTER_S
                self._throttle.warn(_log, "no_thread_for_reversals", reason=str(error))

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) a reversal is due next."""
        left = self._left()
        if self._working or left is None:
            return None
        return max(self._not_before, self._clock.monotonic() + max(0.0, left))

    def due_in(self, seconds: float, reversal: Reversal) -> Reversal:
        """Return the reversal, to be tried in so many seconds."""
        return replace(
            reversal,
            try_at=self._clock.now() + timedelta(seconds=seconds),
            boot_id=self._boot.id,
            boot_due=self._boot.seconds() + seconds,
        )

    def finish_begun(self) -> None:
        """Finish the reversals that an earlier process had started; call it while holding `ScriptRunner.exclusive`."""
        for record in self._records.pending():
            if reversal_of(record).run:
                self._reverse(record)

    def _is_due(self) -> bool:
        left = self._left()
        return left is not None and left <= 0

    def _left(self) -> float | None:
        """Return the seconds until the next reversal is due, from what is cached until a record changes."""
        pending = self._records.pending()
        if self._next[0] is not pending:
            self._next = (pending, _Next.of(pending, self._boot.id))
        return self._next[1].left(self._boot.seconds(), self._clock.now(), self._since)

    def _next_due(self) -> ResponseRecord | None:
        for record in self._records.pending():
            left = _Next.of([record], self._boot.id).left(self._boot.seconds(), self._clock.now(), self._since)
            if left is not None and left <= 0:
                return record
        return None

    def _work(self) -> None:
        pause = threading.Event()
        try:
            while self._is_due():
                with self._runner.exclusive():
                    due = self._next_due()  # a command may have renewed it in the meantime
                    if due is not None:
                        self._reverse(due)
                self._wake()
                pause.wait(_YIELD_S)
        except StoreError as error:
            _log.error("reversal_not_recorded", reason=str(error))
            self._not_before = self._clock.monotonic() + _RETRY_AFTER_S
        except Exception:
            _log.exception("reversals_failed")
            self._not_before = self._clock.monotonic() + _RETRY_AFTER_S
        finally:
            self._working = False
            self._wake()

    def _reverse(self, record: ResponseRecord) -> None:
        is_ours = False
        try:
            record, end = self._run(record)
            failure = None if end.good else self._in_words(end, record)
        except StoreError:
            raise
        except LauncherFailed as error:
            failure, is_ours = f"The agent could not start the script: {error.strerror}.", True
        except (ConsumerError, ExposedFileError, OSError) as error:
            failure, is_ours = str(error), isinstance(error, OSError) and is_exhaustion(error)
        self._observer.reached(f"{_STEP}ended")
        run = reversal_of(record).run
        if failure is None:
            now = self._clock.now()
            self._records.save(replace(record, reversal=None, reversed_at=now, changed_at=now))
            self._observer.reached(f"{_STEP}done")
        else:
            self._records.save(
                replace(record, reversal=self._after_failure(reversal_of(record), failure, is_ours=is_ours))
            )
            _log.warning("reversal_failed", script=record.script, keys=record.keys, reason=failure)
        if run:
            self._leftovers.remove(self._runs / run)

    def _run(self, record: ResponseRecord) -> tuple[ResponseRecord, RunEnd]:
        """Run the script, or wait for the run that an earlier process has started."""
        reversal = reversal_of(record)
        run = Run(self._runs / reversal.run, self._clock, self._runner.confinement) if reversal.run else None
        if run is None or run.is_lost:
            directory = self._runner.prepare().directory
            check_executable(directory, record.executable)
            name = uuid.uuid4().hex
            record = self._records.save(replace(record, reversal=replace(reversal, run=name)))
            self._observer.reached(f"{_STEP}recorded")
            # design.md: "A reversal runs below a small shell, detached from the agent"
            run = Run(self._runs / name, self._clock, self._runner.confinement)
            line = write_line(reversal.message, "delete")
            run.begin(self._runner.path_of(record.executable), line, self._runner.working_directory)
            self._observer.reached(f"{_STEP}begun")
        return record, run.wait(self._runner.deadline())

    def _in_words(self, end: RunEnd, record: ResponseRecord) -> str:
        if end.overdue:
            return "The script did not end in time and was stopped."
        if end.exit_status is None:
            return "The script was interrupted."
        if end.exit_status == _NOT_FOUND:  # by the shell, which does not say that it is the interpreter
            path = self._runner.path_of(record.executable)
            problem = interpreter_problem(path, self._runner.working_directory)
            if problem is not None:
                return f"The script could not be started: {problem}."
        stderr = f": {end.stderr.strip()[-200:]}" if end.stderr.strip() else ""
        return f"The script ended with exit status {end.exit_status}{stderr}."

    def _after_failure(self, reversal: Reversal, failure: str, *, is_ours: bool) -> Reversal:
        """Return the reversal with its next attempt; one that the agent itself could not make is not the last one."""
        attempts = min(reversal.attempts + 1, len(_WAITS_S)) if is_ours else reversal.attempts + 1
        failed = replace(reversal, run=None, attempts=attempts, failure=failure)
        if attempts <= len(_WAITS_S):
            return self.due_in(_WAITS_S[attempts - 1], failed)
        return replace(failed, try_at=None, boot_id=None, boot_due=None)
