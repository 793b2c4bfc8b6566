"""Signs what the server says to an agent, for its enrolments, and holds back what the agent would refuse unsigned."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from broker.contract.dsse import MAX_ENROLMENTS, Scope, SigningKey, payload_type, seal, write_body
from broker.contract.topics import Channel
from broker.signing.recipient import Recipient

__all__ = [
    "Signer",
]


_HOLDS_S = 2.0
_NOT_SAID = "It is not enrolled here and has not said yet whether it takes what is unsigned."


class Signer:
    """Turns frames into signed ones. `keys` may be empty as long as there are none; `standings` looks agents up.

    An agent with an enrolment is spoken to signed. One without is spoken to unsigned only if it says that it accepts
    that, or has never spoken where nobody is enrolled. Nothing is said to any other: it would refuse it.
    """

    def __init__(
        self,
        issuer: str,
        keys: Callable[[], Sequence[SigningKey]],
        standings: Callable[[Sequence[str]], Mapping[str, Recipient]],
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._standings = standings
        self._now = now
        self._monotonic = monotonic
        self._known: dict[str, tuple[Recipient, float]] = {}

    def held(self, agents: Iterable[str]) -> dict[str, str]:
        """Return which of these agents nothing may be said to now, and why, in one sentence.

        An enrolment is seen some seconds late, and the first one at once. Raises LedgerError and SigningKeyError.
        """
        wanted = list(agents)
        self._look_up([agent for agent in wanted if not (self._is_fresh(agent) and self._known[agent][0].enrolments)])
        reasons = {agent: self._why_not(agent) for agent in wanted}
        return {agent: reason for agent, reason in reasons.items() if reason is not None}

    def sign(self, agent: str, channel: Channel, frame: bytes) -> bytes | None:
        """Return the frame as this agent takes it: signed, or as it is; None where nothing may be said to it.

        Raises LedgerError and SigningKeyError.
        """
        if not self._is_fresh(agent):
            self._look_up([agent])
        if self._why_not(agent) is not None:
            return None
        standing, _ = self._known[agent]
        if not standing.enrolments:
            return frame
        scope = Scope(self._issuer, agent, standing.named(MAX_ENROLMENTS), self._now())
        return seal(payload_type(channel), write_body(scope, frame), self._keys())

    def _is_fresh(self, agent: str) -> bool:
        return agent in self._known and self._monotonic() < self._known[agent][1]

    def _look_up(self, agents: Sequence[str]) -> None:
        if agents:
            until = self._monotonic() + _HOLDS_S
            self._known |= {agent: (standing, until) for agent, standing in self._standings(agents).items()}

    def _why_not(self, agent: str) -> str | None:
        standing, _ = self._known[agent]
        if standing.enrolments and not self._keys():
            return "It is enrolled, and there are no signing keys: restore them from a backup."
        if standing.enrolments or standing.accepts_unsigned:
            return None
        if standing.accepts_unsigned is None:
            return _NOT_SAID if standing.others_are_enrolled else None
        return "It takes nothing unsigned and has no enrolment here: enroll it (anew) with a token."
