"""Versions and their order: a small part of PEP 440, `N(.N)*` and at most one of aN, bN or rcN."""

import re
from dataclasses import dataclass
from typing import Self

from broker.errors import BrokerError

__all__ = [
    "InvalidVersion",
    "Version",
]


_VERSION = re.compile(r"(\d{1,9}(?:\.\d{1,9}){0,5})(?:(a|b|rc)(\d{1,9}))?", re.ASCII)


class InvalidVersion(BrokerError):
    """A text is not a version."""


@dataclass(frozen=True, order=True)
class Version:
    """A version to be compared: 1.2 equals 1.2.0, and 1.2rc1 comes before both."""

    release: tuple[int, ...]
    stage: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a version; raises InvalidVersion. What is read is also safe as the name of a directory."""
        match = _VERSION.fullmatch(text)
        if match is None:
            raise InvalidVersion(f"{text[:80]!r} is not a version; write numbers and dots, as in 1.4.2 or 1.5rc1.")
        release = [int(number) for number in match[1].split(".")]
        while len(release) > 1 and release[-1] == 0:
            release.pop()
        stage = ("a", "b", "rc", None).index(match[2])
        return cls(tuple(release), stage, int(match[3] or 0))
