"""Logging in at an issuer: a browser is sent there, and comes back with an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from broker.access.grants import Credential

__all__ = [
    "LONGEST_LOG_IN_S",
    "ForeignLogIn",
    "LogInBegun",
    "LoggedIn",
]


LONGEST_LOG_IN_S = 600.0


@dataclass(frozen=True)
class LogInBegun:
    """The address at the issuer, and the secret of this log-in, which only the browser that has begun it may keep."""

    address: str
    kept: str


@dataclass(frozen=True)
class LoggedIn:
    """Who has logged in, and the path of the page to go to."""

    credential: Credential
    target: str


class ForeignLogIn(Protocol):
    """An issuer at which people log in."""

    @property
    def page_url(self) -> str:
        """Where browsers reach the page, without a slash at the end."""

    @property
    def name(self) -> str:
        """The host of the issuer, for people."""

    def begin(self, target: str) -> LogInBegun:
        """Begin a log-in, which leads to a path of the page. Raises IssuerUnavailable."""
        ...

    def finish(self, kept: str | None, answer: Mapping[str, str]) -> LoggedIn:
        """Return who has logged in, by what the browser has kept and the parameters that it comes back with.

        Raises InvalidCredential, and IssuerUnavailable.
        """
        ...
