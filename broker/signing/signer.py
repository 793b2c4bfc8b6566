"""Signs messages to agents for their enrolments, and holds messages that an agent would reject."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.contract.dsse import MAX_ENROLMENTS, Scope, SigningKey, payload_type, seal, write_body
from broker.contract.topics import Channel
from broker.signing.recipient import Recipient

__all__ = [
    "Hold",
    "Signer",
]


_CACHE_LIFETIME_S = 2.0


@dataclass(frozen=True)
class Hold:
    """Why nothing may be sent to an agent now: a stable code, and a sentence for the operator."""

    code: str
    message: str


_NO_SIGNING_KEYS = Hold(
    "no_signing_keys", "The agent is enrolled, but there are no signing keys: restore them from a backup."
)
_STATUS_UNKNOWN = Hold(
    "status_unknown", "The agent is not enrolled here and has not yet reported whether it accepts unsigned messages."
)
_NOT_ENROLLED = Hold(
    "not_enrolled",
    "The agent accepts only signed messages but is not enrolled with this server: re-enroll it with a new token.",
)


class Signer:
    """Signs frames. `keys` returns the signing keys, which may be none; `recipients` looks agents up by name.

    Messages to an agent with an enrolment are signed. An agent without one gets unsigned messages only if its status
    reports that it accepts them, or if it never sent a status and no agent is enrolled here. Messages to any other
    agent are held, because it would reject them.
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

    def held(self, agents: Iterable[str]) -> dict[str, Hold]:
        """Return those of the agents that nothing may be sent to now, and why.

        Enrolments are cached for 2 seconds; an agent without one is looked up each time. Raises LedgerError and
        SigningKeyError.
        """
        names = list(agents)
        self._look_up([agent for agent in names if not (self._is_fresh(agent) and self._cache[agent][0].enrolments)])
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

    def _is_fresh(self, agent: str) -> bool:
        return agent in self._cache and self._monotonic() < self._cache[agent][1]

    def _look_up(self, agents: Sequence[str]) -> None:
        if agents:
            until = self._monotonic() + _CACHE_LIFETIME_S
            self._cache |= {agent: (recipient, until) for agent, recipient in self._recipients(agents).items()}

    def _hold(self, recipient: Recipient) -> Hold | None:
        if recipient.enrolments and not self._keys():
            return _NO_SIGNING_KEYS
        if recipient.enrolments or recipient.accepts_unsigned:
            return None
        if recipient.accepts_unsigned is None:
            return _STATUS_UNKNOWN if recipient.enrolments_exist else None
        return _NOT_ENROLLED
