"""The change from one enrolment to another, such that the agent can be reached at every moment by one of them."""

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
    "Connection",
    "Relocation",
]


_log = structlog.get_logger(__name__)
_GRACE_S = 60.0  # how long an old server is waited for that does not acknowledge its last results
_RETRY_S = 10.0


class Connection(Protocol):
    """The agent's own connection, which the trial takes down and up again."""

    def start(self) -> None:
        """Connect."""

    def stop(self, *, last_will: bool = False) -> None:
        """Disconnect, and let the broker publish the last will if asked."""


class Relocation:
    """The consumer.ports.Relocation and Chore of an agent that lives at `broker` under `topic_prefix`.

    `moved_by` is the id of the command that has made another enrolment current: the process must be replaced.
    """

    def __init__(
        self,
        enrolments: EnrolmentDirectory,
        store: CommandStore,
        connection: Connection,
        clock: Clock,
        observer: Observer,
        *,
        incarnation: str,
        home: tuple[str, str],
        accept_unsigned: bool,
    ) -> None:
        self.moved_by: str | None = None
        self._enrolments = enrolments
        self._store = store
        self._connection = connection
        self._clock = clock
        self._observer = observer
        self._incarnation = incarnation
        self._home = home
        self._accept_unsigned = accept_unsigned
        self._due = 0.0
        self._lock = threading.Lock()
        self._closed = False
        self._trying = False
        self._decided: EnrolmentAttempt | None = None
        found = enrolments.attempt()
        if found is not None and found.state is AttemptState.CARRIED:
            self._decide(found)

    @property
    def under_way(self) -> bool:
        """Whether an enrolment is being tried out, or is decided: the current one must not change beside it."""
        return self._trying or self._decided is not None

    @property
    def holds(self) -> bool:
        """Whether a change at the same broker is under way: its commands wait for the next process."""
        return self._decided is not None and self._is_home(self._decided)

    @property
    def refusal(self) -> Refusal | None:
        """Why commands must not begin any more: the agent leaves the server that sent them."""
        if self._decided is None or self._is_home(self._decided):
            return None
        grant = self._decided.grant
        return Refusal(
            "agent_leaves", f"The agent leaves this server for the one at {grant.broker}; send the command there."
        )

    def try_out(self, enrolment: Enrolment, deadline: float, cancelled: threading.Event) -> None:
        """Let the enrolment carry a result; see consumer.ports.Relocation."""
        self._trying = True
        self._connection.stop(last_will=True)  # for as long as the trial takes, the agent is offline there
        try:
            trial = EnrolmentTrial(
                enrolment, self._store.store_generation, self._incarnation, self._clock, self._accept_unsigned
            )
            trial.run(deadline, cancelled)
        finally:
            self._trying = False
            with self._lock:
                if not self._closed:
                    self._connection.start()

    def close(self) -> None:
        """Let a trial that is under way not take up the agent's own connection again."""
        with self._lock:
            self._closed = True

    def leave_for(self, attempt: EnrolmentAttempt) -> None:
        """Make the decision durable; see consumer.ports.Relocation."""
        carried = replace(attempt, state=AttemptState.CARRIED)
        self._enrolments.record(carried)
        self._decide(carried)

    def step(self) -> None:
        """Make the decided enrolment current once the old server has the last results, or was waited for in vain."""
        attempt, now = self._decided, self._clock.monotonic()
        if attempt is None or self.moved_by is not None or now < self._due or not self._may_leave(attempt, now):
            return
        try:
            self._enrolments.make_current(attempt.name)
            self._enrolments.record(replace(attempt, state=AttemptState.COMMITTED))
            self._observer.reached("enroll-agent.committed")
        except EnrolmentError as error:
            _log.error("enrolment_not_changed", reason=str(error))
            self._due = now + _RETRY_S
            return
        self.moved_by = attempt.command_id
        _log.info("enrolment_changed", server=attempt.grant.server, broker=attempt.grant.broker)
        try:
            self._enrolments.keep_only(attempt.name)
        except EnrolmentError as error:
            _log.warning("old_enrolment_not_removed", reason=str(error))

    def next_due(self) -> float | None:
        """Return None: it looks on every turn, and what it waits for is an ack."""

    def _decide(self, attempt: EnrolmentAttempt) -> None:
        self._at_latest = self._clock.monotonic() + _GRACE_S
        self._decided = attempt

    def _is_home(self, attempt: EnrolmentAttempt) -> bool:
        return (attempt.grant.broker, attempt.grant.topic_prefix) == self._home

    def _may_leave(self, attempt: EnrolmentAttempt, now: float) -> bool:
        stored = self._store.find(attempt.command_id)
        if stored is not None and stored.result is None:
            return False
        if now >= self._at_latest:
            return True
        if self._is_home(attempt):
            return stored is None
        return self._store.pending_count() + self._store.done_count() == 0
