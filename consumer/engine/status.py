"""The agent's retained status: its content, and when it must be published again."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from broker.contract.codec import encode_status
from broker.contract.limits import MAX_NUMBER
from broker.contract.messages import PendingReversal, RunningProgress, Status
from broker.contract.states import STATUS_INTERVAL_S, Problem
from consumer.engine.problems import Problems
from consumer.ports import Clock, CommandStore, ServiceState
from consumer.settings import AgentConfig
from consumer.store.groups import Groups

__all__ = [
    "PendingReversals",
    "StatusBuilder",
    "boot_id",
]


_MIN_INTERVAL_S = 0.2
# What every command moves. A fleet with few commands sends as many statuses as results; waiting halves them.
_COUNTERS = ("last_sequence", "queue_depth", "results_waiting", "running_command", "audit_head")
_COUNTERS_WAIT_S = 2.0
_PROGRESS_WAIT_S = 10.0  # a fleet that downloads a release would send little else
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class PendingReversals(Protocol):
    """The pending reversals of active responses, as shown in the status."""

    def pending(self) -> tuple[PendingReversal, ...]:
        """Return the next reversals, at most as many as fit into a status."""

    @property
    def pending_count(self) -> int:
        """How many reversals are pending in total."""

    @property
    def failure(self) -> str | None:
        """Why reversals failed, in one sentence; None if none did."""


class StatusBuilder:
    """Builds the agent's status, and decides when it is due.

    The engine sets its attributes: `problems`, the seconds by which the machine's clock is behind the server's, the
    version of the trusted signing keys, the enrolment's id, and how far the running command is. `service_state` and
    `service_problem` are called for each status. `running_version` is that of an installed release.
    """

    def __init__(
        self,
        config: AgentConfig,
        store: CommandStore,
        clock: Clock,
        *,
        incarnation: str,
        supported_types: tuple[str, ...],
        service_state: Callable[[], ServiceState] | None = None,
        service_problem: Callable[[], str | None] = lambda: None,
        reversals: PendingReversals | None = None,
        running_version: str | None = None,
    ) -> None:
        self.problems = Problems()
        self.clock_behind_s: int | None = None
        self.signing_keys_version: int | None = None
        self.enrolment_id: str | None = None
        self.progress: RunningProgress | None = None
        self._config = config
        self._store = store
        self._service_state = service_state
        self._service_problem = service_problem
        self._clock = clock
        self._groups = Groups(Path(config.state))
        self._incarnation = incarnation
        self._supported_types = supported_types
        self._reversals = reversals
        self._version = running_version or version("agent-command-manager")
        self._boot_id = boot_id()
        self._published: Status | None = None
        self._published_at = 0.0
        self._checked = False  # for a change, since it was last published
        self._due_at = 0.0
        self._last: Status | None = None
        self._answers: str | None = None
        self._is_requested = False
        self._attempt, self._number = 0, 0

    def current(self, running: str | None, *, online: bool = True) -> Status:
        """Return the current status; `running` is the id of the running command."""
        last = self._store.last_sequence
        reversals = self._reversals
        service = self._service_state() if self._service_state else None
        problems = self.current_problems()
        return Status(
            agent=self._config.agent,
            online=online,
            version=self._version,
            incarnation=self._incarnation,
            boot_id=self._boot_id,
            store_generation=self._store.store_generation,
            epoch=last.epoch if last else None,
            closed_epoch=self._store.closed_epoch or None,
            last_sequence=last.number if last else 0,
            queue_depth=self._store.pending_count(),
            results_waiting=self._store.done_count(),
            running_command=running,
            running_progress=self.progress if running else None,
            supported_types=self._supported_types,
            accepts_unsigned=self._config.accept_unsigned,
            clock_behind_s=self.clock_behind_s,
            signing_keys_version=self.signing_keys_version,
            enrolment_id=self.enrolment_id,
            service={"kind": service.kind, "running": service.running} if service else None,
            groups=self._groups.current,
            pending_reversals=reversals.pending() if reversals else (),
            pending_reversal_count=reversals.pending_count if reversals else 0,
            audit_head=self._store.audit_head,
            answers=self._answers,
            problems=tuple(problems) or None,
            last_error=" ".join(problems.values()) or None,
        )

    def current_problems(self) -> dict[Problem, str]:
        """Return a sentence for each thing that is wrong now, the most important first."""
        reversals = self._reversals
        return self.problems.current(
            {
                Problem.SERVICE: self._service_problem(),
                Problem.REVERSAL: reversals.failure if reversals else None,
            }
        )

    def publish_again(self) -> None:
        """Make the status due at once, as on a new connection."""
        self._published = None

    def report(self, request: str) -> None:
        """Make the status due, as the answer to this request of the server."""
        self._answers, self._is_requested, self._checked = request, True, False

    def offline(self, running: str | None) -> Status:
        """Return the status that the agent leaves when it stops."""
        return self._placed(self.current(running, online=False))

    def last_wills(self) -> Callable[[], bytes]:
        """Return the function that makes the last will of each attempt to connect, in the thread that connects."""
        self._last = self.current(None)
        return self._last_will

    @property
    def last(self) -> Status | None:
        """The status that was last made to be published, or its last will; None before either."""
        return self._last

    def _last_will(self) -> bytes:
        """Return a last will that comes after all statuses of this attempt, and before those of the next."""
        assert self._last is not None
        self._attempt += 1
        order = (self._store.starts, self._attempt, MAX_NUMBER)
        return encode_status(
            replace(self._last, online=False, running_command=None, running_progress=None, order=order)
        )

    def _placed(self, status: Status) -> Status:
        """Return the status with the time, and its place among all statuses."""
        self._number += 1
        order = (self._store.starts, self._attempt, self._number)
        return replace(status, order=order, updated_at=self._clock.now())

    def take_due(self, running: str | None) -> Status | None:
        """Return the status if it has changed, or if the last one is too old; None within the minimum interval.

        Counters that have moved, and a new phase of a command, wait for others to move, too; a percentage waits longer.
        A longer journal alone is not a change, because each command makes it grow; the next status includes it.
        """
        now = self._clock.monotonic()
        if self._published is not None and now < self._published_at + _MIN_INTERVAL_S:
            return None
        status = self.current(running)
        self._checked, self._due_at = True, self._when_due(status, now)
        if now < self._due_at:
            return None
        self._published, self._published_at, self._checked = status, now, False
        self._last, self._is_requested, self._due_at = status, False, now + STATUS_INTERVAL_S
        return self._placed(status)

    def next_due(self) -> float:
        """Return when (monotonic seconds) the status must be checked or published, if nothing happens earlier."""
        if self._published is None:
            return 0.0
        return self._due_at if self._checked else self._published_at + _MIN_INTERVAL_S

    def _when_due(self, status: Status, now: float) -> float:
        before = self._published
        if before is None or self._is_requested:
            return now
        if replace(status, audit_head=before.audit_head) == before:
            return self._published_at + STATUS_INTERVAL_S
        same_phase = _phase(status) == _phase(before)
        status = replace(status, running_progress=before.running_progress)
        if replace(status, audit_head=before.audit_head) == before:
            return min(self._due_at, now + (_PROGRESS_WAIT_S if same_phase else _COUNTERS_WAIT_S))
        counters: dict[str, Any] = {name: getattr(before, name) for name in _COUNTERS}
        only_counters = replace(status, **counters) == before
        return min(self._due_at, now + _COUNTERS_WAIT_S) if only_counters else now


def _phase(status: Status) -> str | None:
    return status.running_progress.phase if status.running_progress else None


def boot_id() -> str:
    """Return the kernel's random id of this boot (random(4)); `unknown` without /proc. Raises OSError."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return _BOOT_ID.read_text().strip()
    return "unknown"
