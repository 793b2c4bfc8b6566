"""Signs messages to agents for their enrolments, and holds messages that an agent would reject."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from broker.contract.dsse import MAX_ENROLMENTS, Scope, SigningKey, payload_type, seal, write_body
from broker.contract.topics import Channel
from broker.signing.hold import Hold, hold_of
from broker.signing.recipient import Recipient

__all__ = [
    "Signer",
]


_CACHE_LIFETIME_S = 2.0


class Signer:
    """Signs frames. `keys` returns the signing keys, which may be none; `recipients` looks agents up by name.

    Messages to an agent with an enrolment are signed. Another one gets unsigned messages, unless it would reject them:
    those are held (`hold_of`).
    """

    def __init__(
        self,
        issuer: str,
        keys: Callable[[], Sequence[SigningKey]],
        recipients: Callable[[Sequence[str]], Mapping[str, Recipient]],
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._recipients = recipients
        self._now = now
        self._monotonic = monotonic
        self._cache: dict[str, tuple[Recipient, float]] = {}

    def held(self, agents: Iterable[str], *, uncached: bool = False) -> dict[str, Hold]:
        """Return those of the agents that nothing may be sent to now, and why.

        Enrolments are cached for 2 seconds; an agent without one is looked up each time, and if `uncached` all of them.
        Raises LedgerError and SigningKeyError.
        """
        names = list(agents)
        self._look_up([agent for agent in names if uncached or not self._is_enrolled(agent)])
        holds = {agent: self._hold(self._cache[agent][0]) for agent in names}
        return {agent: hold for agent, hold in holds.items() if hold is not None}

    def sign(self, agent: str, channel: Channel, frame: bytes) -> bytes | None:
        """Return the frame in the form that this agent accepts, signed or unchanged; None while the agent is held.

        Raises LedgerError and SigningKeyError.
        """
        if not self._is_fresh(agent):
            self._look_up([agent])
        recipient, _ = self._cache[agent]
        if self._hold(recipient) is not None:
            return None
        if not recipient.enrolments:
            return frame
        # design.md: "A signature is for all enrolments of an agent."
        scope = Scope(self._issuer, agent, recipient.addressed_enrolments(MAX_ENROLMENTS), self._now())
        return seal(payload_type(channel), write_body(scope, frame), self._keys())

    def _is_enrolled(self, agent: str) -> bool:
        return self._is_fresh(agent) and bool(self._cache[agent][0].enrolments)

    def _is_fresh(self, agent: str) -> bool:
        return agent in self._cache and self._monotonic() < self._cache[agent][1]

    def _look_up(self, agents: Sequence[str]) -> None:
        if agents:
            until = self._monotonic() + _CACHE_LIFETIME_S
            self._cache |= {agent: (recipient, until) for agent, recipient in self._recipients(agents).items()}

    def _hold(self, recipient: Recipient) -> Hold | None:
        return hold_of(recipient, has_keys=bool(self._keys()))
