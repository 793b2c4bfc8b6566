"""Who may command this agent: what its server has signed for it and its enrolment, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from broker.contract.dsse import (
    Scope,
    SignatureError,
    VerifyingKey,
    payload_type,
    read_body,
    read_envelope,
)
from broker.contract.topics import Channel
from consumer.errors import EnrolmentError
from consumer.trust.trusted_clock import ServerClock

__all__ = [
    "NoTrust",
    "ReceivedFrame",
    "Trust",
    "Verifier",
]


_CLOCKS_DIFFER = timedelta(days=1)


class Trust(Protocol):
    """What a signature must be by, and for which enrolment."""

    @property
    def enrolment_id(self) -> str | None:
        """The id of the enrolment that the agent lives by."""

    @property
    def good_until(self) -> datetime:
        """When the enrolment's certificate ends; no server signs anything for it later."""

    @property
    def keys(self) -> Sequence[VerifyingKey]:
        """The keys that are trusted now."""


class NoTrust:
    """The `Trust` and `KeyKeeper` of an agent that is not enrolled."""

    enrolment_id = None
    good_until = datetime.max.replace(tzinfo=UTC)
    keys: Sequence[VerifyingKey] = ()
    version: int | None = None
    key_ids: Sequence[str] = ()

    def update(self, said: UpdateSigningKeys) -> None:
        """Raise EnrolmentError."""
        raise EnrolmentError("This agent is not enrolled: it trusts no signing keys.")


@dataclass(frozen=True)
class ReceivedFrame:
    """A frame of messages out of what arrived. With a `refusal`, one sentence, nothing in it may be obeyed.

    `signed_by` are the ids of the trusted keys that have signed it, at `signed_at` by the server's clock.
    """

    frame: bytes
    refusal: str | None = None
    signed_by: tuple[str, ...] = ()
    signed_at: datetime | None = None

    @property
    def signed(self) -> bool:
        """Whether a trusted key has signed it."""
        return bool(self.signed_by)

    def trusted(self) -> bytes:
        """Return the frame; raise SignatureError with the refusal if there is one."""
        if self.refusal is not None:
            raise SignatureError(self.refusal)
        return self.frame


class Verifier:
    """Opens what arrives for one agent. The signature is checked over raw bytes, before anything of them is parsed."""

    def __init__(self, agent: str, trust: Trust, clock: ServerClock, *, accept_unsigned: bool) -> None:
        self._agent = agent
        self._trust = trust
        self._clock = clock
        self._accept_unsigned = accept_unsigned

    def open(self, channel: Channel, payload: bytes) -> ReceivedFrame:
        """Return the frame that arrived on a channel, with a refusal unless it is for this agent by its server.

        A refused frame is there so that the sender can be told what was refused. Raises SignatureError when there is
        none to be found.
        """
        envelope = read_envelope(payload)
        if envelope is None:
            refusal = None if self._accept_unsigned else self._unsigned(channel)
            return ReceivedFrame(payload, refusal)
        try:
            signed, signers = envelope.verify(payload_type(channel), self._trust.keys)
        except SignatureError as error:
            _, frame = read_body(envelope.unverified_payload())
            return ReceivedFrame(frame, f"The {channel} was refused: {error}")
        scope, frame = read_body(signed)
        refusal = self._misdirected(channel, scope)
        if refusal is None:
            self._clock.hear(scope.not_before)
        return ReceivedFrame(frame, refusal, signers, scope.not_before)

    def why_no_longer_trusted(self, signed_by: tuple[str, ...] | None) -> str | None:
        """Return why a command that was signed by these keys when it came must not begin now, in one sentence.

        See consumer.ports.StoredCommand. Several keys sign each frame; it is enough that one of them is trusted still.
        """
        if signed_by is None or any(key.id in signed_by for key in self._trust.keys):
            return None
        if signed_by:
            return f"It was signed by {', '.join(signed_by)}, and no such key is trusted here now; send a new command."
        if self._accept_unsigned:
            return None
        return "It came unsigned, which this agent does not accept any more; send a new command with `acm send`."

    def _misdirected(self, channel: Channel, scope: Scope) -> str | None:
        if scope.audience != self._agent:
            return f"The {channel} was signed for the agent {scope.audience[:64]!r} and was refused by {self._agent!r}."
        if self._trust.enrolment_id not in scope.enrolments:
            return f"The {channel} was signed for another enrolment of {self._agent!r} than the present one."
        if scope.not_before - self._trust.good_until > _CLOCKS_DIFFER:
            return (
                f"The {channel} says that it was signed at {scope.not_before:%Y-%m-%d %H:%M} UTC, after the end of "
                "this agent's certificate: look at the clock of the server, and who else signs."
            )
        return None

    def _unsigned(self, channel: Channel) -> str:
        return (
            f"This agent refuses a {channel} that its server has not signed; "
            "send it with `acm send`, or run the agent with --accept-unsigned."
        )
