"""A round trip with the server: a result of no command, which every server stores as unmatched and acks."""

import threading
from collections.abc import Callable, Sequence

import msgspec

from broker.contract.codec import to_json
from broker.contract.messages import Ack, Feedback
from broker.contract.states import STATUS_INTERVAL_S, FeedbackKind, Outcome
from broker.system.retry import growing_waits
from consumer.ports import Clock

__all__ = ["RoundTrip"]


_RESEND_INTERVAL_S = 2.0


class RoundTrip:
    """Sends a result from the first `request` on until it is acknowledged. `request` may be called from any thread.

    It is also sent, less and less often, while nothing has arrived for five minutes: a connection on which its ack does
    not arrive is of no use. `quiet_s` returns for how many seconds nothing has arrived.

    The ack is verified as every other one: for an enrolled agent it must be signed by its server.
    """

    def __init__(
        self,
        agent: str,
        store_generation: str,
        incarnation: str,
        clock: Clock,
        quiet_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.is_done = False
        self._agent = agent
        self._store_generation = store_generation
        self._incarnation = incarnation
        self._clock = clock
        self._quiet_s = quiet_s
        self._is_quiet = False
        self._waits = growing_waits()
        self._ack = Ack(f"round-trip-{incarnation}", incarnation)
        self._requested = threading.Event()
        self._send_at = 0.0

    def request(self) -> None:
        """Begin, unless it has begun."""
        self._requested.set()

    def take_due(self) -> list[bytes]:
        """Return the result, as a JSON object, if it is due."""
        now = self._clock.monotonic()
        self._note_quiet()
        is_wanted = self._is_quiet or (self._requested.is_set() and not self.is_done)
        if not is_wanted or now < self._send_at:
            return []
        self._send_at = now + (next(self._waits) if self._is_quiet else _RESEND_INTERVAL_S)
        return [msgspec.json.encode(to_json(self._result()))]

    def observe(self, acks: Sequence[Ack]) -> None:
        """End it if one of these verified acks is that of its result."""
        self.is_done = self.is_done or self._ack in acks

    def _note_quiet(self) -> None:
        """Begin with short waits whenever it gets quiet, and whenever something arrives again."""
        is_quiet = self._quiet_s() >= STATUS_INTERVAL_S
        if is_quiet != self._is_quiet:
            self._is_quiet, self._waits, self._send_at = is_quiet, growing_waits(), 0.0

    def _result(self) -> Feedback:
        return Feedback(
            FeedbackKind.RESULT,
            self._agent,
            self._store_generation,
            self._incarnation,
            "completed",
            "This result shows that the agent is acknowledged by its server.",
            command_id=self._ack.command_id,
            outcome=Outcome.SUCCESS,
            finished_at=self._clock.now(),
            digest=self._ack.digest,
        )
