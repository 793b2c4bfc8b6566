"""Versions of releases: PEP 440, and safe as the name of a directory."""

import re

from packaging.version import InvalidVersion as _NotPep440
from packaging.version import Version

from broker.errors import BrokerError

__all__ = [
    "InvalidVersion",
    "parse_version",
]


# A release is installed in a directory named after its version, which a shell script reads too.
_SAFE = re.compile(r"[0-9][0-9a-z.]{0,63}", re.ASCII)


class InvalidVersion(BrokerError):
    """A text is not a version."""

    code = "invalid_version"


def parse_version(text: str) -> Version:
    """Return the version, to be compared; its text is safe as the name of a directory.

    Narrower than PEP 440: at most 64 of 0-9, a-z and dots, beginning with a digit. So no epoch (`1!2`), local version
    (`1+x`), `v1` or white space. Raises InvalidVersion.
    """
    try:
        if _SAFE.fullmatch(text):
            return Version(text)
    except _NotPep440:
        pass
    raise InvalidVersion(f"{text[:80]!r} is not a version; write numbers and dots, as in 1.4.2 or 1.5rc1.")
