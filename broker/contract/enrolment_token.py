"""Enrolment tokens: `acm1.<secret>.<fingerprint>`.

The secret pays for one enrolment; the fingerprint lets an agent know the right authority on first contact.
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
    """A text that is no enrolment token. The error's text never holds any of it."""


def fingerprint_of(der: bytes) -> str:
    """Return the fingerprint of a certificate or public key in DER: its SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(der).hexdigest()


@dataclass(frozen=True)
class EnrolmentToken:
    """A token taken apart: the secret (base64url, 128 random bits or more) and the authority's fingerprint."""

    secret: str = field(repr=False)
    fingerprint: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token, white space around it aside; raise InvalidToken."""
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise InvalidToken("This is no enrolment token: copy the whole line that `acm token create` printed.")
        return cls(match[1], match[2])

    @property
    def text(self) -> str:
        """The token as it is handed out. Whoever reads it can enroll."""
        return f"acm1.{self.secret}.{self.fingerprint}"

    @property
    def secret_hash(self) -> str:
        """What may be stored: the SHA-256 of the secret. A secret of this entropy needs neither salt nor stretching."""
        return hashlib.sha256(self.secret.encode()).hexdigest()
