"""A child process of the agent as the managed service."""

import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from broker.system.threads import is_exhaustion, waits_for_resources
from consumer.errors import ServiceError, ServiceUnreachable
from consumer.ports import Clock, ServiceState, Stop
from consumer.services.desired_state import DesiredState
from consumer.services.kept_program import KeptProgram
from consumer.system.confinement import LauncherFailed
from consumer.system.interpreter import missing_program, why_not_started
from consumer.system.pidfile import PidFile
from consumer.system.process_group import OrphanedGroup
from consumer.system.programs import environment_of_service, exit_in_words

__all__ = [
    "ChildService",
]


_log = structlog.get_logger(__name__)
_KILL_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class _Incarnation:
    program: KeptProgram
    name: str

    @property
    def runs(self) -> bool:
        return self.program.exit_status is None


class ChildService:
    """A child process, restarted when it dies, with growing waits; it is stopped with all its descendants.

    `step` must be called regularly; it starts the child when it should run. A child that goes into the background is
    not started again as long as what it left behind runs: each start would add another one. Thread-safe.
    """

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        clock: Clock,
        waits: Callable[[], Iterator[float]],
        *,
        grace_s: float,
        settle_s: float,
    ) -> None:
        self._argv = list(argv)
        self._desired = DesiredState(directory / "service-stopped")
        self._trace = directory / "service.pid"
        self._orphan = OrphanedGroup(
            PidFile(directory / "service.pid"),
            clock,
            grace_s,
            event="service_outlived_agent",
            last_signal=signal.SIGQUIT,  # which the keeper answers by killing all
        )
        self._clock = clock
        self._new_waits = waits
        self._waits = waits()
        self._grace_s = grace_s
        self._settle_s = settle_s
        self._lock = threading.RLock()
        self._current: _Incarnation | None = None
        self._start_at = 0.0
        self._failure: str | None = None
        self._settled_at = 0.0
        self._reported: KeptProgram | None = None

    def state(self) -> ServiceState:
        """Return the state of the child; never waits for a start or stop in progress."""
        current = self._current
        if current is None or not current.runs:
            return ServiceState("child", running=False)
        return ServiceState("child", True, current.name, {"pid": current.program.pid})

    def problem(self) -> str | None:
        """Return why the child does not run though it should, in one sentence; None if it runs, or should not.

        It is reported until the next incarnation has run for `settle_s` seconds.
        """
        current = self._current
        if current is not None and current.runs and self._clock.monotonic() >= self._settled_at:
            self._failure = None
        return None if self._desired.stopped else self._failure

    def step(self) -> None:
        """Start the child if it should run and its wait has passed; do nothing during a start or stop."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._start_if_due()
        finally:
            self._lock.release()

    def next_due(self) -> float | None:
        """Return None: a child's death cannot be predicted."""

    def _start_if_due(self) -> None:
        if self._desired.stopped or self.state().running or self._clock.monotonic() < self._start_at:
            return
        if self._current is None and not self._orphan_is_gone():
            return
        if self._current is not None and not self._is_cleared(self._current.program):
            return
        self._start_at = self._clock.monotonic() + next(self._waits)
        try:
            self._spawn()
        except ServiceError as error:
            _log.error("service_not_started", reason=str(error))

    def _orphan_is_gone(self) -> bool:
        try:
            return self._orphan.step()
        except ServiceError as error:  # a second child would run beside it
            self._failure = str(error)
            self._start_at = self._clock.monotonic() + next(self._waits)
            _log.error("service_not_started", reason=str(error))
            return False

    def _is_cleared(self, died: KeptProgram) -> bool:
        """Return whether nothing is left of a child that died; what it left behind by a failure is ended."""
        if self._reported is not died:
            self._reported, self._failure = died, f"The service {_how(died)}."
            _log.warning("service_died", exit_status=died.exit_status, reason=_how(died))
        if died.left and died.exit_status != 0:
            died.kill()
        return died.is_gone

    def _spawn(self) -> None:
        try:
            program = KeptProgram(self._argv, environment_of_service(), self._trace)
        except LauncherFailed as error:
            self._failure = f"The agent could not start the service {self._argv[0]}: {error.strerror}."
            raise ServiceUnreachable(self._failure, code="keeper_failed") from error
        except OSError as error:
            self._failure = (
                f"The service could not be started: {why_not_started(self._argv[0], error)}: {self._argv[0]}."
            )
            raise ServiceError(self._failure, code="not_started") from error
        if self._current is not None:
            self._current.program.close()
        self._settled_at = self._clock.monotonic() + self._settle_s
        self._current = _Incarnation(program, uuid.uuid4().hex)

    def _spawn_by(self, deadline: float) -> None:
        """Start the child; what the machine does not have now is waited for, until the deadline."""
        pause = threading.Event()
        for wait_s in waits_for_resources():
            try:
                self._spawn()
                return
            except ServiceError as error:
                left, cause = deadline - self._clock.monotonic(), error.__cause__
                if not (isinstance(cause, OSError) and is_exhaustion(cause)) or left <= 0:
                    raise
            pause.wait(min(wait_s, left))

    def _end_orphan(self, deadline: float) -> None:
        if self._current is None:
            self._orphan.end(deadline)

    def start(self, deadline: float) -> ServiceState:
        """Start the child unless it runs, and record that it should run.

        Raises ServiceError when it cannot be started or ends within `settle_s` seconds; `step` then tries again.
        """
        with self._lock:
            self._desired.set_stopped(False)
            self._waits = self._new_waits()
            if not self.state().running:
                self.shut_down(deadline - self._settle_s)  # what an earlier one has left
                self._spawn_by(deadline - self._settle_s)
                self._watch_startup(deadline)
            return self.state()

    def _watch_startup(self, deadline: float) -> None:
        assert self._current is not None
        seconds = self._at_most(self._settle_s, deadline)
        if self._current.program.wait(seconds) is not None:
            again = "" if self._current.program.left else "; the agent will try again"
            raise ServiceError(
                f"The service was started, but {_how(self._current.program)} at once{again}.", code="ended_at_once"
            )
        if seconds < self._settle_s:
            raise ServiceError(
                "The service was started, but the deadline passed before it had run for settle_s seconds.",
                code="timed_out",
            )

    def stop(self, deadline: float) -> ServiceState:
        """Stop the child, like `shut_down`, and record that it should stay stopped."""
        with self._lock:
            self._desired.set_stopped(True)
            stop = self.shut_down(deadline)
            return replace(self.state(), stop=stop)

    def shut_down(self, deadline: float = float("inf")) -> Stop | None:
        """Stop the child without recording it, for the agent's own exit; return None if it did not run.

        Sends TERM to it and its descendants, and KILL after the grace period, at `deadline` at the latest. What is left
        when it has ended is killed. Raises ServiceError if something cannot be killed.
        """
        with self._lock:
            self._end_orphan(deadline)
            current = self._current
            if current is None or current.program.is_gone:
                return None
            return _end(current.program, self._at_most(self._grace_s, deadline))

    def restart(self, deadline: float) -> ServiceState:
        """Replace the child with a new one; raises ServiceError, like `start`.

        A child is not stopped when its program is missing for the next start, or the time before `deadline` cannot
        suffice to see the new one run.
        """
        with self._lock:
            if deadline - self._clock.monotonic() <= self._settle_s:
                raise ServiceError(
                    f"The command's time is not longer than settle_s ({self._settle_s:g} s), so the service was not "
                    "stopped: give the command a longer timeout.",
                    code="timed_out",
                )
            self._refuse_missing_programs()
            stop = self.shut_down(deadline - self._settle_s)
            return replace(self.start(deadline), stop=stop)

    # design.md: "What works ends once its replacement was seen to start"
    def _refuse_missing_programs(self) -> None:
        ours = missing_program(sys.executable)
        if ours is not None:
            raise ServiceUnreachable(f"The agent could not restart the service: {ours}.", code="keeper_failed")
        missing = missing_program(self._argv[0])
        if missing is not None:
            raise ServiceError(f"The service was not restarted: {missing}.", code="program_missing")

    def _at_most(self, seconds: float, deadline: float) -> float:
        return max(0.0, min(seconds, deadline - self._clock.monotonic()))


def _end(program: KeptProgram, grace_s: float) -> Stop | None:
    had_ended = program.exit_status is not None
    program.terminate()
    killed = program.wait(grace_s) is None
    if had_ended:
        program.wait_gone(grace_s)
    program.kill()
    if not program.wait_gone(_KILL_TIMEOUT_S):
        raise ServiceError(
            "The service is not stopped: some of its processes cannot be killed, or run as another user.",
            code="still_running",
        )
    program.wait(_KILL_TIMEOUT_S)
    if killed:
        _log.warning("service_killed", pid=program.pid, grace_s=grace_s)
    return Stop(killed=killed, grace_s=grace_s)


def _how(program: KeptProgram) -> str:
    """Return how a program ended, as the rest of a sentence, with the usual reason if it goes into the background."""
    status = program.exit_status
    ended = exit_in_words(0 if status is None else status)
    if program.left:
        return f"{ended} and left processes running: does it go into the background? It must stay in the foreground"
    return f"{ended}: does it go into the background? It must stay in the foreground" if status == 0 else ended
