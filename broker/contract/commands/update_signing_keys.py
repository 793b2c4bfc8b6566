"""`update-signing-keys`: its parameters and the data of its result."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import msgspec

__all__ = [
    "MAX_CLOCK_LEAD",
    "MAX_KEYS",
    "UPDATE_SIGNING_KEYS",
    "UpdateSigningKeys",
    "UpdateSigningKeysData",
]


UPDATE_SIGNING_KEYS = "update-signing-keys"
MAX_KEYS = 4
MAX_CLOCK_LEAD = timedelta(days=1)
"""How far a version, as a time, may be after the time of its signature: an agent never accepts an earlier one again."""
_Version = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
_Key = Annotated[str, msgspec.Meta(max_length=1024)]
_Keys = Annotated[tuple[_Key, ...], msgspec.Meta(min_length=1, max_length=MAX_KEYS)]


@dataclass(frozen=True)
class UpdateSigningKeys:
    """Trust exactly these public keys of the server (Ed25519, in PEM); accepted only in a signed command.

    `version` is that of the server's list of keys, the time of its last change in milliseconds since 1970. One that is
    not newer than the agent's changes nothing.
    """

    version: _Version
    keys: _Keys


@dataclass(frozen=True)
class UpdateSigningKeysData:
    """The version of the list that the agent uses now, and the ids of the keys that it trusts."""

    version: int
    keys: tuple[str, ...]
