"""Sends each result again, with growing, jittered waits, until the server acknowledges its digest."""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field

import backoff

from broker.contract.messages import Ack, Feedback
from consumer.ports import Clock, CommandStore, Comms, StoredCommand

__all__ = ["FeedbackOutbox", "growing_waits"]

_FRAME_RESULTS = 32
_FIRST_WAIT_S = 2.0
_LONGEST_WAIT_S = 300.0


def growing_waits() -> Iterator[float]:
    """Yield waits in seconds: 2, 4, 8 … 300, each shortened by up to half so that agents do not send in step."""
    waits = backoff.expo(base=2, factor=_FIRST_WAIT_S, max_value=_LONGEST_WAIT_S)
    next(waits)
    for wait in waits:
        yield wait / 2 + backoff.full_jitter(wait / 2)


@dataclass
class _Waiting:
    key: str
    digest: str
    due: float
    result: Feedback | None
    waits: Iterator[float] = field(default_factory=growing_waits)


class FeedbackOutbox:
    """The results that wait for their ack. Owns no thread: `step` sends what is due."""

    def __init__(
        self,
        store: CommandStore,
        comms: Comms,
        clock: Clock,
        waits: Callable[[], Iterator[float]] = growing_waits,
    ) -> None:
        self._store = store
        self._comms = comms
        self._clock = clock
        self._waits = waits
        self._waiting: dict[str, _Waiting] = {}

    def load(self) -> None:
        """Take up the results that the store holds from an earlier run."""
        for stored in self._store.with_results():
            self.add(stored)

    def add(self, stored: StoredCommand) -> None:
        """Take up a result that has just been committed; it is due at once."""
        assert stored.result is not None
        assert stored.result.digest is not None
        self._waiting[stored.command.id] = _Waiting(
            stored.key, stored.result.digest, self._clock.monotonic(), stored.result, self._waits()
        )

    def tell_begun(self, progress: Feedback) -> None:
        """Say once that a command runs; nobody waits for it, so it may be lost."""
        self._comms.send_feedback([progress])

    def send_all_again(self) -> None:
        """Make every result due now, as after a reconnect."""
        for waiting in self._waiting.values():
            waiting.due = 0.0

    def step(self) -> None:
        """Publish the results that are due, several in one frame."""
        now = self._clock.monotonic()
        due = [(command_id, item) for command_id, item in self._waiting.items() if item.due <= now]
        for start in range(0, len(due), _FRAME_RESULTS):
            frame = [self._take(command_id, item, now) for command_id, item in due[start : start + _FRAME_RESULTS]]
            self._comms.send_feedback([result for result in frame if result])

    def _take(self, command_id: str, item: _Waiting, now: float) -> Feedback | None:
        item.due = now + next(item.waits)
        result, item.result = item.result, None
        if result is None:
            stored = self._store.find(command_id)
            result = stored.result if stored else None
        return result

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the next result is due."""
        return min((item.due for item in self._waiting.values()), default=None)

    def acknowledged(self, acks: Listing[Ack]) -> list[str]:
        """Return the store keys that these acks allow to delete; an ack with another digest changes nothing."""
        keys = []
        for ack in acks:
            item = self._waiting.get(ack.command_id)
            if item is not None and item.digest == ack.digest:
                del self._waiting[ack.command_id]
                keys.append(item.key)
        return keys
