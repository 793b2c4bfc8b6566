"""Signs what the server says to an agent, for the enrolments of that agent that are good."""

from collections.abc import Callable
from collections.abc import Sequence as Listing
from datetime import datetime

from broker.contract.signing import Scope, SigningKey, payload_type, seal, write_body
from broker.contract.topics import Channel

__all__ = ["Signer"]

_ENROLMENTS_HOLD_S = 2.0


class Signer:
    """Turns frames into signed ones. `enrolments` returns the ids of an agent's good enrolments, the newest first."""

    def __init__(
        self,
        issuer: str,
        keys: Callable[[], Listing[SigningKey]],
        enrolments: Callable[[str], Listing[str]],
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._enrolments = enrolments
        self._now = now
        self._monotonic = monotonic
        self._known: dict[str, tuple[Listing[str], float]] = {}

    def sign(self, agent: str, channel: Channel, frame: bytes) -> bytes:
        """Return the frame signed for this agent; as it is for one that was never enrolled, which verifies nothing.

        Raises LedgerError and SigningKeyError.
        """
        enrolments = self._enrolments_of(agent)
        if not enrolments:
            return frame
        scope = Scope(self._issuer, agent, tuple(enrolments), self._now())
        return seal(payload_type(channel), write_body(scope, frame), self._keys())

    def signs_for(self, agent: str) -> bool:
        """Say whether what this agent is told is signed. Raises LedgerError."""
        return bool(self._enrolments_of(agent))

    def _enrolments_of(self, agent: str) -> Listing[str]:
        """Return an agent's enrolments as they were a moment ago; that there are none is looked up each time."""
        known, until = self._known.get(agent, ((), 0.0))
        if not known or self._monotonic() >= until:
            known = self._enrolments(agent)
            self._known[agent] = known, self._monotonic() + _ENROLMENTS_HOLD_S
        return known
