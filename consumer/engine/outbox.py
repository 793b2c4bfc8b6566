"""The outbox of feedback: each result is sent until its digest is acked, with exponential backoff and jitter."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf

from broker.contract.messages import Ack
from broker.contract.states import FeedbackKind
from broker.contract.trace_context import TraceContext
from broker.system.retry import growing_wait
from consumer.engine.resend_delay import ResendDelay
from consumer.engine.traces import TracedResult
from consumer.engine.watch import AgentWatch
from consumer.ports import Clock, CommandStore, Notice, StoredCommand

__all__ = [
    "FeedbackOutbox",
]


_NOTICE_DELAY_S = 0.03
_WINDOW = 1000
_SENT_IN_WINDOW = 9  # after some eight minutes


@dataclass(slots=True)
class _Waiting:
    """A result that waits for its ack; `encoded` until it was sent once, `sent_at` since it was last."""

    digest: str
    encoded: bytes | None
    sent_at: float = -inf
    due: float = 0.0
    times_sent: int = 0
    trace: TraceContext | None = None
    command_type: str = ""


# design.md: "A window of results is sent again"
class FeedbackOutbox:
    """The results that wait for their ack, and when each is due. Sends nothing itself.

    Other feedback (notices) is delayed briefly: most commands end within that time, and the result makes it obsolete.
    `unreadable` has the ids of results that could not be read again from the store, until it is cleared. `wait` returns
    the seconds after each sending, by the number of those before it. With `keeps_traces`, results know theirs.
    """

    def __init__(
        self,
        store: CommandStore,
        clock: Clock,
        wait: Callable[[int], float] = growing_wait,
        watch: AgentWatch | None = None,
        *,
        keeps_traces: bool = False,
    ) -> None:
        self._store = store
        self._keeps_traces = keeps_traces
        self._traced: list[TracedResult] = []
        self._watch = watch or AgentWatch()
        self._clock = clock
        self._wait = wait
        self._waiting: dict[str, _Waiting] = {}
        self._unsent: deque[str] = deque()
        self._resend_at = inf  # no result of the window is due earlier
        self._delay = ResendDelay()
        self._notices: dict[tuple[str | None, FeedbackKind], Notice] = {}
        self._notices_due = 0.0
        self.unreadable: set[str] = set()

    def load(self) -> None:
        """Queue the results that an earlier process left in the store."""
        for stored in self._store.with_results():
            self._queue(stored, None)
        self.requeue_all()

    def add_result(self, stored: StoredCommand) -> None:
        """Queue a result that was just committed; it is due at once."""
        self._queue(stored, None if stored.result is None else stored.result.encoded)
        self._unsent.append(stored.command.id)

    def _queue(self, stored: StoredCommand, encoded: bytes | None) -> None:
        result, command_id = stored.result, stored.command.id
        assert result is not None
        assert result.feedback.digest is not None
        if self._notices:
            for kind in (FeedbackKind.ACCEPTED, FeedbackKind.PROGRESS):
                self._notices.pop((command_id, kind), None)
        self._waiting[command_id] = waiting = _Waiting(result.feedback.digest, encoded)
        if stored.trace is not None and self._keeps_traces:
            waiting.trace, waiting.command_type = TraceContext.of_text(stored.trace), stored.command.type

    def add_notices(self, notices: Iterable[Notice]) -> None:
        """Queue feedback that is sent once, or not at all if a result replaces it first."""
        if not self._notices:
            self._notices_due = self._clock.monotonic() + _NOTICE_DELAY_S
        self._notices |= {(item.command_id, item.kind): item for item in notices}

    def requeue_all(self) -> None:
        """Make every result due now, as after a reconnect."""
        for waiting in self._waiting.values():
            waiting.due, waiting.sent_at = 0.0, -inf
        self._delay = ResendDelay()
        self._resend_at = 0.0

    def take_due(self, limit: int = 500) -> list[bytes]:
        """Return the encoded feedback that is due, at most `limit` results, and schedule each result again.

        Those of traces are not among it: `take_traced` returns them.
        """
        now = self._clock.monotonic()
        return [*self._take_notices(now), *self._take_results(now, limit)]

    def take_traced(self) -> list[TracedResult]:
        """Return the results of traces that were due when `take_due` was called: each is a message of its own."""
        traced, self._traced = self._traced, []
        return traced

    def _take_notices(self, now: float) -> list[bytes]:
        if self._notices_due > now:
            return []
        notices = [notice.encoded for notice in self._notices.values()]
        self._notices.clear()
        return notices

    def _take_results(self, now: float, limit: int) -> list[bytes]:
        due: list[str] = []
        while self._unsent and len(due) < limit:
            due.append(self._unsent.popleft())
        if now >= self._resend_at:
            due += self._due_in_window(now, limit - len(due))
        # Results that are sent together share a wait and are sent again together: agents spread out, results need not.
        waits: dict[int, float] = {}
        results = [self._take(command_id, now, waits) for command_id in due if command_id in self._waiting]
        return [result for result in results if result]

    def _due_in_window(self, now: float, limit: int) -> list[str]:
        window = islice(self._waiting.items(), _WINDOW)
        not_before = self._delay.not_before
        moments = [(name, max(it.due, not_before(it.sent_at))) for name, it in window if not it.encoded]
        due = [command_id for command_id, at in moments if at <= now]
        left = [at for _, at in moments if at > now]
        self._resend_at = now if len(due) > limit else min(left, default=inf)
        return due[:limit]

    def _take(self, command_id: str, now: float, waits: dict[int, float]) -> bytes | None:
        item = self._waiting[command_id]
        self._watch.result_sent(again=item.encoded is None)
        if item.times_sent not in waits:
            waits[item.times_sent] = self._wait(item.times_sent)
        item.sent_at, item.due = now, now + waits[item.times_sent]
        item.times_sent += 1
        self._resend_at = min(self._resend_at, item.due)
        if item.times_sent >= _SENT_IN_WINDOW and len(self._waiting) > _WINDOW:
            self._waiting[command_id] = self._waiting.pop(command_id)  # others have not been sent again for as long
            item.times_sent = 0
            self._resend_at = 0.0
        is_first = item.encoded is not None
        encoded, item.encoded = item.encoded or self._read(command_id), None
        if item.trace is None or encoded is None:
            return encoded
        self._traced.append(TracedResult(command_id, item.command_type, encoded, item.trace, is_first))
        return None

    def _read(self, command_id: str) -> bytes | None:
        stored = self._store.find(command_id)
        if stored is not None and stored.damage is not None:
            self.unreadable.add(command_id)
        return stored.result.encoded if stored and stored.result else None

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the next feedback is due."""
        if self._unsent:
            return self._clock.monotonic()
        due = min(self._resend_at if self._waiting else inf, self._notices_due if self._notices else inf)
        return None if due == inf else due

    def acknowledged_by(self, acks: Sequence[Ack]) -> list[str]:
        """Return the ids of commands whose result these acks confirm; an ack with another digest confirms nothing."""
        waiting = self._waiting
        known = (ack for ack in acks if ack.command_id in waiting)
        confirmed = [ack.command_id for ack in known if waiting[ack.command_id].digest == ack.digest]
        if confirmed:
            newest = waiting[confirmed[-1]]
            self._delay.note_ack(newest.sent_at, self._clock.monotonic(), is_clear=newest.times_sent == 1)
        return list(dict.fromkeys(confirmed))

    def remove(self, command_ids: Sequence[str]) -> None:
        """Stop sending these results: their commands are deleted."""
        if command_ids and len(self._waiting) > _WINDOW:
            self._resend_at = 0.0  # others move into the window
        for command_id in command_ids:
            del self._waiting[command_id]
