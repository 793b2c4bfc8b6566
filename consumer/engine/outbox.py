"""The outbox of feedback: each result is sent until its digest is acked, with exponential backoff and jitter."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from broker.contract.messages import Ack
from broker.contract.states import FeedbackKind
from broker.system.retry import growing_waits
from consumer.ports import Clock, CommandStore, EncodedFeedback, StoredCommand

__all__ = [
    "FeedbackOutbox",
]


_NOTICE_DELAY_S = 0.03


@dataclass
class _Waiting:
    digest: str
    due: float
    encoded: bytes | None
    waits: Iterator[float]


class FeedbackOutbox:
    """The results that wait for their ack, and when each is due. Sends nothing itself.

    Other feedback (notices) is delayed briefly: most commands end within that time, and the result makes it obsolete.
    `unreadable` has the ids of results that could not be read again from the store, until it is cleared.
    """

    def __init__(
        self,
        store: CommandStore,
        clock: Clock,
        waits: Callable[[], Iterator[float]] = growing_waits,
    ) -> None:
        self._store = store
        self._clock = clock
        self._waits = waits
        self._waiting: dict[str, _Waiting] = {}
        self._notices: dict[tuple[str | None, FeedbackKind], bytes] = {}
        self._notices_due = 0.0
        self.unreadable: set[str] = set()

    def load(self) -> None:
        """Queue the results that an earlier process left in the store."""
        for stored in self._store.with_results():
            self.add_result(stored)

    def add_result(self, stored: StoredCommand) -> None:
        """Queue a result that was just committed; it is due at once."""
        result = stored.result
        assert result is not None
        assert result.feedback.digest is not None
        for kind in (FeedbackKind.ACCEPTED, FeedbackKind.PROGRESS):
            self._notices.pop((stored.command.id, kind), None)
        self._waiting[stored.command.id] = _Waiting(
            result.feedback.digest, self._clock.monotonic(), result.encoded, self._waits()
        )

    def add_notices(self, notices: Iterable[EncodedFeedback]) -> None:
        """Queue feedback that is sent once, or not at all if a result replaces it first."""
        if not self._notices:
            self._notices_due = self._clock.monotonic() + _NOTICE_DELAY_S
        self._notices |= {(item.feedback.command_id, item.feedback.kind): item.encoded for item in notices}

    def requeue_all(self) -> None:
        """Make every result due now, as after a reconnect."""
        for waiting in self._waiting.values():
            waiting.due = 0.0

    def take_due(self, limit: int = 500) -> list[bytes]:
        """Return the encoded feedback that is due, at most `limit` results, and schedule each result again."""
        now = self._clock.monotonic()
        return [*self._take_notices(now), *self._take_results(now, limit)]

    def _take_notices(self, now: float) -> list[bytes]:
        if self._notices_due > now:
            return []
        notices = list(self._notices.values())
        self._notices.clear()
        return notices

    def _take_results(self, now: float, limit: int) -> list[bytes]:
        due = [(command_id, item) for command_id, item in self._waiting.items() if item.due <= now]
        results = (self._take(command_id, item, now) for command_id, item in due[:limit])
        return [result for result in results if result]

    def _take(self, command_id: str, item: _Waiting, now: float) -> bytes | None:
        item.due = now + next(item.waits)
        encoded, item.encoded = item.encoded, None
        if encoded is None:
            stored = self._store.find(command_id)
            encoded = stored.result.encoded if stored and stored.result else None
            if stored is not None and stored.damage is not None:
                self.unreadable.add(command_id)
        return encoded

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the next feedback is due."""
        dues = (item.due for item in self._waiting.values())
        return min(chain(dues, [self._notices_due] if self._notices else []), default=None)

    def acknowledged_by(self, acks: Sequence[Ack]) -> list[str]:
        """Return the ids of commands whose result these acks confirm; an ack with another digest confirms nothing."""
        waiting = self._waiting
        known = (ack for ack in acks if ack.command_id in waiting)
        return list(dict.fromkeys(ack.command_id for ack in known if waiting[ack.command_id].digest == ack.digest))

    def remove(self, command_ids: Sequence[str]) -> None:
        """Stop sending these results: their commands are deleted."""
        for command_id in command_ids:
            del self._waiting[command_id]
