"""One log-in: what ties the browser that has begun it, the answer of the issuer and its token together."""

import binascii
import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime

import msgspec

from broker.access.foreign_log_in import LONGEST_LOG_IN_S
from broker.access.grants import InvalidCredential

__all__ = [
    "LogInAttempt",
]


_SECRET_BYTES = 32
_LONGEST_TARGET = 1000  # a cookie has 4096 bytes


# design.md: "A log-in at an issuer is kept by the browser alone"
@dataclass(frozen=True)
class LogInAttempt:
    """A log-in that began at a time, and leads to a path of the page.

    Its state and nonce, and the verifier of its code (RFC 7636), are made from a secret that only the browser keeps.
    """

    secret: str
    began_at: float
    target: str

    @classmethod
    def new(cls, target: str, now: datetime) -> "LogInAttempt":
        """Return one that begins now."""
        is_short = len(target) <= _LONGEST_TARGET
        return cls(secrets.token_urlsafe(_SECRET_BYTES), now.timestamp(), target if is_short else "/")

    @classmethod
    def of(cls, kept: str | None, now: datetime) -> "LogInAttempt":
        """Return the one that a browser has kept. Raises InvalidCredential if it is none, or ended."""
        try:
            content = urlsafe_b64decode((kept or "").encode())
            attempt = cls(*msgspec.json.decode(content, type=tuple[str, float, str]))
        except (binascii.Error, UnicodeError, ValueError) as error:  # msgspec's errors are ValueErrors
            raise InvalidCredential(
                "This log-in was not begun in this browser, or has ended already: begin it again.",
                code="log_in_not_begun",
            ) from error
        if not 0 <= now.timestamp() - attempt.began_at <= LONGEST_LOG_IN_S:
            raise InvalidCredential(
                f"This log-in was begun more than {LONGEST_LOG_IN_S / 60:.0f} minutes ago: begin it again.",
                code="log_in_expired",
            )
        return attempt

    @property
    def kept(self) -> str:
        """What the browser keeps."""
        return urlsafe_b64encode(msgspec.json.encode((self.secret, self.began_at, self.target))).decode()

    @property
    def state(self) -> str:
        """What the answer of the issuer must repeat."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """What the token of the issuer must repeat."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """What only the one who has begun can add to the code of the issuer."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """What the issuer compares the verifier with, by the method S256."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())

    def _derived(self, purpose: str) -> str:
        message = msgspec.json.encode((purpose, self.began_at, self.target))
        return _text(hmac.digest(self.secret.encode(), message, "sha256"))


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")
