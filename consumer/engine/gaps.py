"""Numbers that arrived and were not stored: the server is asked to send again from the first one that is missing."""

from broker.contract.messages import SequenceNumber
from consumer.engine.feedback import FeedbackFactory
from consumer.ports import Clock, CommandStore, EncodedFeedback

__all__ = ["Gaps"]


_DELAY_S = 0.03


class Gaps:
    """The highest number that was not stored, because others must come first or because there was no room.

    Its gap is made when it is sent: by then the expected number may have arrived, and a server that is asked for a
    number whose result it has concludes that the agent went back in time.
    """

    def __init__(self, store: CommandStore, feedback: FeedbackFactory, clock: Clock) -> None:
        self._store = store
        self._feedback = feedback
        self._clock = clock
        self._highest: SequenceNumber | None = None
        self._due = 0.0

    def note(self, sequence: SequenceNumber) -> None:
        """Note that this number was not stored."""
        highest = self._highest
        if highest is None:
            self._due = self._clock.monotonic() + _DELAY_S
        if highest is None or (sequence.epoch, sequence.number) > (highest.epoch, highest.number):
            self._highest = sequence

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the gap is due; None if there is none, or no room for what it asks for."""
        return self._due if self._highest is not None and self._store.has_room else None

    def take_due(self) -> list[EncodedFeedback]:
        """Return the gap that is due, if there is one; once."""
        due, highest = self.next_due(), self._highest
        if due is None or highest is None or self._clock.monotonic() < due:
            return []
        self._highest = None
        last = self._store.last_sequence
        if last is not None and last.epoch > highest.epoch:
            return []
        expected = last.number + 1 if last is not None and last.epoch == highest.epoch else 1
        return [self._feedback.gap(highest, expected)] if expected <= highest.number else []
