"""Enrolment tokens: `acm1.<secret>.<fingerprint>`.

The secret is valid for one enrolment; by the fingerprint an agent authenticates the authority on first contact.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Self

from broker.errors import BrokerError

__all__ = [
    "EnrolmentToken",
    "InvalidToken",
    "fingerprint_of",
]


_TOKEN = re.compile(r"acm1\.([A-Za-z0-9_-]{22,86})\.([0-9a-f]{64})")


class InvalidToken(BrokerError):
    """A text that is not an enrolment token. The error never quotes it."""

    code = "invalid_token"


def fingerprint_of(der: bytes) -> str:
    """Return the fingerprint of a certificate or public key in DER: its SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(der).hexdigest()


@dataclass(frozen=True)
class EnrolmentToken:
    """A token: the secret (base64url, at least 128 random bits) and the authority's fingerprint."""

    secret: str = field(repr=False)
    fingerprint: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the token in a text, ignoring white space around it; raises InvalidToken."""
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise InvalidToken("This is not an enrolment token: copy the whole line that `acm token create` printed.")
        return cls(match[1], match[2])

    @property
    def text(self) -> str:
        """The token as text: a secret, since it allows to enroll."""
        return f"acm1.{self.secret}.{self.fingerprint}"

    @property
    def secret_hash(self) -> str:
        """The SHA-256 of the secret, which may be stored. At this entropy it needs neither salt nor key stretching."""
        return hashlib.sha256(self.secret.encode()).hexdigest()
