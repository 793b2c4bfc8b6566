"""The switch from one enrolment to another; the agent can be reached over one of them at any time."""

import threading
from dataclasses import replace
from typing import Protocol

import structlog

from consumer.enrolment.store import AttemptState, Enrolment, EnrolmentAttempt, EnrolmentDirectory
from consumer.enrolment.trial import EnrolmentTrial
from consumer.errors import EnrolmentError
from consumer.observer import Observer
from consumer.ports import Clock, CommandStore
from consumer.trust.refusal import Refusal

__all__ = [
    "Relocation",
]


_log = structlog.get_logger(__name__)
_GRACE_S = 60.0  # for the old server to acknowledge the last results
_RETRY_S = 10.0


class _Connection(Protocol):
    """The agent's own connection, which is down while the trial runs."""

    def start(self) -> None:
        """Connect."""

    def stop(self, *, last_will: bool = False) -> None:
        """Disconnect; with `last_will` the broker publishes the last will."""


class Relocation:
    """Moves an agent from `address`, its current broker and topic prefix; a consumer.ports.BackgroundTask.

    `moved_by` is the id of the command that made another enrolment current: the process must then be replaced.
    """

    def __init__(
        self,
        enrolments: EnrolmentDirectory,
        store: CommandStore,
        connection: _Connection,
        clock: Clock,
        observer: Observer,
        *,
        incarnation: str,
        address: tuple[str, str],
        accept_unsigned: bool,
    ) -> None:
        self.moved_by: str | None = None
        self._enrolments = enrolments
        self._store = store
        self._connection = connection
        self._clock = clock
        self._observer = observer
        self._incarnation = incarnation
        self._address = address
        self._accept_unsigned = accept_unsigned
        self._retry_at = 0.0
        self._lock = threading.Lock()
        self._closed = False
        self._in_trial = False
        self._decided: EnrolmentAttempt | None = None
        found = enrolments.attempt()
        if found is not None and found.state is AttemptState.CARRIED:
            self._decide(found)

    @property
    def in_progress(self) -> bool:
        """Whether a trial runs or a switch is scheduled: until it ends, the current enrolment must not change."""
        return self._in_trial or self._decided is not None

    @property
    def holds(self) -> bool:
        """Whether a switch at the same broker is scheduled: its commands wait for the next process."""
        return self._decided is not None and self._is_same_broker(self._decided)

    # design.md: "A moving agent ends the old server's other commands as `rejected`"
    @property
    def refusal(self) -> Refusal | None:
        """Why commands must be refused: the agent is moving away from the server that sent them."""
        if self._decided is None or self._is_same_broker(self._decided):
            return None
        grant = self._decided.grant
        return Refusal(
            "agent_leaves",
            f"The agent is moving from this server to the one at {grant.broker}; send the command there.",
        )

    # design.md: "The trial of an enrolment takes the old connection down"
    def try_out(self, enrolment: Enrolment, deadline: float, cancelled: threading.Event) -> None:
        """Carry one result over the enrolment while the agent's own connection is down, then reconnect.

        Raises EnrolmentError if no server has acknowledged the result by the deadline, or if cancelled.
        """
        self._in_trial = True
        self._connection.stop(last_will=True)  # the agent is offline there during the trial
        try:
            trial = EnrolmentTrial(
                enrolment, self._store.store_generation, self._incarnation, self._clock, self._accept_unsigned
            )
            trial.run(deadline, cancelled)
        finally:
            self._in_trial = False
            with self._lock:
                if not self._closed:
                    self._connection.start()

    def close(self) -> None:
        """Keep a running trial from starting the agent's own connection again."""
        with self._lock:
            self._closed = True

    def schedule_switch(self, attempt: EnrolmentAttempt) -> None:
        """Schedule, durably, the switch to this attempt's enrolment once its command's result is delivered.

        Raises EnrolmentError if that cannot be stored durably; then no switch is scheduled.
        """
        carried = replace(attempt, state=AttemptState.CARRIED)
        self._enrolments.record(carried)
        self._decide(carried)

    def step(self) -> None:
        """Make the new enrolment current once the old server has the last results, or the wait for that timed out."""
        attempt, now = self._decided, self._clock.monotonic()
        if attempt is None or self.moved_by is not None or now < self._retry_at or not self._may_leave(attempt, now):
            return
        try:
            self._enrolments.make_current(attempt.name)
            self._enrolments.record(replace(attempt, state=AttemptState.COMMITTED))
            self._observer.reached("enroll-agent.committed")
        except EnrolmentError as error:
            _log.error("enrolment_not_changed", reason=str(error))
            self._retry_at = now + _RETRY_S
            return
        self.moved_by = attempt.command_id
        _log.info("enrolment_changed", server=attempt.grant.server, broker=attempt.grant.broker)
        try:
            self._enrolments.keep_only(attempt.name)
        except EnrolmentError as error:
            _log.warning("old_enrolment_not_removed", reason=str(error))

    def next_due(self) -> float | None:
        """Return None: it waits for an ack, and every step checks for one."""

    def _decide(self, attempt: EnrolmentAttempt) -> None:
        self._leave_by = self._clock.monotonic() + _GRACE_S
        self._decided = attempt

    def _is_same_broker(self, attempt: EnrolmentAttempt) -> bool:
        return (attempt.grant.broker, attempt.grant.topic_prefix) == self._address

    def _may_leave(self, attempt: EnrolmentAttempt, now: float) -> bool:
        stored = self._store.find(attempt.command_id)
        if stored is not None and stored.result is None:
            return False
        if now >= self._leave_by:
            return True
        if self._is_same_broker(attempt):
            return stored is None
        return self._store.pending_count() + self._store.done_count() == 0
