"""A round trip with the server: a result of no command, which every server stores as unmatched and acks."""

import threading
from collections.abc import Sequence

import msgspec

from broker.contract.codec import to_json
from broker.contract.messages import Ack, Feedback
from broker.contract.states import FeedbackKind, Outcome
from consumer.ports import Clock

__all__ = ["RoundTrip"]


_RESEND_INTERVAL_S = 2.0


class RoundTrip:
    """Sends a result from the first `request` on until it is acknowledged. `request` may be called from any thread.

    The ack is verified as every other one: for an enrolled agent it must be signed by its server.
    """

    def __init__(self, agent: str, store_generation: str, incarnation: str, clock: Clock) -> None:
        self.is_done = False
        self._agent = agent
        self._store_generation = store_generation
        self._incarnation = incarnation
        self._clock = clock
        self._ack = Ack(f"round-trip-{incarnation}", incarnation)
        self._requested = threading.Event()
        self._send_at = 0.0

    def request(self) -> None:
        """Begin, unless it has begun."""
        self._requested.set()

    def take_due(self) -> list[bytes]:
        """Return the result, as a JSON object, if it is due."""
        now = self._clock.monotonic()
        if self.is_done or not self._requested.is_set() or now < self._send_at:
            return []
        self._send_at = now + _RESEND_INTERVAL_S
        return [msgspec.json.encode(to_json(self._result()))]

    def observe(self, acks: Sequence[Ack]) -> None:
        """End it if one of these verified acks is that of its result."""
        self.is_done = self.is_done or self._ack in acks

    def _result(self) -> Feedback:
        return Feedback(
            FeedbackKind.RESULT,
            self._agent,
            self._store_generation,
            self._incarnation,
            "completed",
            "This result shows that this version of the agent is acknowledged by its server.",
            command_id=self._ack.command_id,
            outcome=Outcome.SUCCESS,
            finished_at=self._clock.now(),
            digest=self._ack.digest,
        )
