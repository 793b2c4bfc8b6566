"""`update-authorities`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

__all__ = [
    "UPDATE_AUTHORITIES",
    "UpdateAuthorities",
    "UpdateAuthoritiesData",
]


UPDATE_AUTHORITIES = "update-authorities"
_Certificate = Annotated[str, msgspec.Meta(max_length=4096)]


@dataclass(frozen=True)
class UpdateAuthorities:
    """Trust exactly these authorities of the broker and the enrolment server; accepted only in a signed command.

    `certificates` are theirs, in PEM. One of them must have issued the agent's own certificate.
    """

    certificates: Annotated[tuple[_Certificate, ...], msgspec.Meta(min_length=1, max_length=4)]


@dataclass(frozen=True)
class UpdateAuthoritiesData:
    """The fingerprints of the authorities that the agent trusts now."""

    fingerprints: tuple[str, ...]
