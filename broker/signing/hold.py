"""When messages to an agent are held, because it would reject them. Imports no cryptography."""

from dataclasses import dataclass

from broker.signing.recipient import Recipient

__all__ = [
    "Hold",
    "hold_of",
]


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


def hold_of(recipient: Recipient, *, has_keys: bool) -> Hold | None:
    """Return why nothing may be sent to this agent now, or None; `has_keys`: the server can sign.

    An agent without an enrolment gets unsigned messages only if its status reports that it accepts them, or if it never
    sent a status and no agent is enrolled here.
    """
    if recipient.enrolments and not has_keys:
        return _NO_SIGNING_KEYS
    if recipient.enrolments or recipient.accepts_unsigned:
        return None
    if recipient.accepts_unsigned is None:
        return _STATUS_UNKNOWN if recipient.enrolments_exist else None
    return _NOT_ENROLLED
