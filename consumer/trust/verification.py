"""Verifies received messages: the agent obeys only those that its server signed for it and its enrolment."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from broker.contract.dsse import (
    Envelope,
    Scope,
    SignatureError,
    VerifyingKey,
    payload_type,
    read_body,
    read_envelope,
)
from broker.contract.topics import Channel
from consumer.errors import EnrolmentError
from consumer.trust.ports import Trust
from consumer.trust.refusal import Refusal
from consumer.trust.side_by_side import SideBySide
from consumer.trust.trusted_clock import TrustedClock

__all__ = [
    "NoTrust",
    "ReceivedFrame",
    "Verifier",
]


_MAX_CLOCK_DIFFERENCE = timedelta(days=1)
_FEWEST_SIDE_BY_SIDE = 4  # fewer are verified sooner than a thread is woken


class NoTrust:
    """The `Trust` and `TrustedKeys` of an agent that is not enrolled."""

    enrolment_id = None
    valid_until = datetime.max.replace(tzinfo=UTC)
    keys: Sequence[VerifyingKey] = ()
    version: int | None = None
    key_ids: Sequence[str] = ()

    def update(self, keys: UpdateSigningKeys) -> None:
        """Raise EnrolmentError."""
        raise EnrolmentError("This agent is not enrolled: it trusts no signing keys.", code="not_enrolled")


class ReceivedFrame(msgspec.Struct, frozen=True):
    """A frame of messages taken out of its envelope. With a `refusal`, nothing in it may be obeyed.

    `signed_by` are the ids of the trusted keys that signed it, at `signed_at` by the server's clock.
    """

    frame: bytes
    refusal: Refusal | None = None
    signed_by: tuple[str, ...] = ()
    signed_at: datetime | None = None

    @property
    def signed(self) -> bool:
        """Whether a trusted key signed it."""
        return bool(self.signed_by)

    def trusted(self) -> bytes:
        """Return the frame; raises SignatureError with the refusal if there is one."""
        if self.refusal is not None:
            raise SignatureError(self.refusal.message, code=self.refusal.code)
        return self.frame


class _Verified(msgspec.Struct, frozen=True):
    """What the check of a payload's signatures with these keys has found; no `envelope` if it is unsigned."""

    keys: tuple[VerifyingKey, ...]
    envelope: Envelope | None = None
    payload: bytes = b""
    signers: tuple[str, ...] = ()
    error: SignatureError | None = None


class Verifier:
    """Opens received messages for one agent. Checks the signature over the raw bytes before parsing any of them.

    `side_by_side` checks the signatures of several frames at the same time; without it, each is checked when opened.
    """

    def __init__(
        self,
        agent: str,
        trust: Trust,
        clock: TrustedClock,
        *,
        accept_unsigned: bool,
        side_by_side: SideBySide | None = None,
    ) -> None:
        self._agent = agent
        self._trust = trust
        self._clock = clock
        self._accept_unsigned = accept_unsigned
        self._side_by_side = side_by_side
        self._ahead: dict[tuple[Channel, bytes], _Verified] = {}

    def verify_ahead(self, channel: Channel, payloads: Sequence[bytes]) -> None:
        """Check the signatures of frames that are opened next, side by side.

        `open` uses what was found if it would find the same: if the same keys are still trusted. So an update of the
        keys among these frames applies to those after it.
        """
        self._ahead.clear()
        keys = tuple(self._trust.keys)
        if self._side_by_side is not None and keys and len(payloads) >= _FEWEST_SIDE_BY_SIDE:
            found = self._side_by_side(lambda payload: _readable(channel, payload, keys), payloads)
            for payload, verified in zip(payloads, found, strict=True):
                if verified is not None:
                    self._ahead[channel, payload] = verified

    def open(self, channel: Channel, payload: bytes) -> ReceivedFrame:
        """Return the frame that arrived on a channel, with a refusal unless its server signed it for this agent.

        A refused frame is returned so that its commands can be answered. Raises SignatureError if no frame
        can be found in the payload.
        """
        keys = tuple(self._trust.keys)
        found = self._ahead.pop((channel, payload), None)
        if found is None or found.keys != keys:
            found = _verified(channel, payload, keys)
        if found.envelope is None:
            refusal = None if self._accept_unsigned else self._unsigned(channel)
            return ReceivedFrame(payload, refusal)
        if found.error is not None:
            _, frame = read_body(found.envelope.unverified_payload())
            return ReceivedFrame(frame, Refusal(found.error.code, f"The {channel} was refused: {found.error}"))
        scope, frame = read_body(found.payload)
        refusal = self._check_scope(channel, scope)
        if refusal is None:
            self._clock.observe(scope.not_before)
        return ReceivedFrame(frame, refusal, found.signers, scope.not_before)

    # design.md: "The signers of a command are stored with it"
    def check_signers(self, signed_by: tuple[str, ...] | None) -> Refusal | None:
        """Return why a command that these keys signed when it arrived must not begin now, or None.

        See consumer.ports.StoredCommand. Several keys sign each frame; one that is still trusted is enough.
        """
        if signed_by is None or any(key.id in signed_by for key in self._trust.keys):
            return None
        if signed_by:
            return Refusal(
                "signers_revoked",
                f"It was signed by {', '.join(signed_by)}, none of which is trusted any more; send a new command.",
            )
        if self._accept_unsigned:
            return None
        return Refusal(
            "unsigned", "It arrived unsigned, which this agent no longer accepts; send a new command with `acm send`."
        )

    def _check_scope(self, channel: Channel, scope: Scope) -> Refusal | None:
        if scope.audience != self._agent:
            return Refusal(
                "wrong_audience",
                f"The {channel} was signed for the agent {scope.audience[:64]!r} and was refused by {self._agent!r}.",
            )
        if self._trust.enrolment_id not in scope.enrolments:
            return Refusal(
                "wrong_enrolment",
                f"The {channel} was signed for an enrolment of {self._agent!r} that is not its current one.",
            )
        if scope.not_before - self._trust.valid_until > _MAX_CLOCK_DIFFERENCE:
            return Refusal(
                "signed_after_expiry",
                f"The {channel} was signed at {scope.not_before:%Y-%m-%d %H:%M} UTC, after this agent's certificate "
                "expires. Check the server's clock; if it is right, a signing key may be stolen.",
            )
        return None

    def _unsigned(self, channel: Channel) -> Refusal:
        return Refusal(
            "unsigned",
            f"This agent refuses a {channel} that its server has not signed; "
            "send it with `acm send`, or run the agent with --accept-unsigned.",
        )


def _verified(channel: Channel, payload: bytes, keys: tuple[VerifyingKey, ...]) -> _Verified:
    """Check the signatures of a payload; raises SignatureError if it is an envelope that cannot be read."""
    envelope = read_envelope(payload)
    if envelope is None:
        return _Verified(keys)
    try:
        signed, signers = envelope.verify(payload_type(channel), keys)
    except SignatureError as error:
        return _Verified(keys, envelope, error=error)
    return _Verified(keys, envelope, signed, signers)


def _readable(channel: Channel, payload: bytes, keys: tuple[VerifyingKey, ...]) -> _Verified | None:
    try:
        return _verified(channel, payload, keys)
    except SignatureError:  # it is found again, and reported, when the payload is opened
        return None
