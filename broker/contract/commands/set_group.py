"""`set-group`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from broker.contract.fields import GroupName

__all__ = [
    "SetGroup",
    "SetGroupData",
]


_Groups = Annotated[tuple[GroupName, ...], msgspec.Meta(max_length=64)]


@dataclass(frozen=True)
class SetGroup:
    """Set the groups that the agent is a member of; the server learns of them from the agent's status."""

    groups: _Groups


@dataclass(frozen=True)
class SetGroupData:
    """The groups that the agent is a member of after the command."""

    groups: tuple[str, ...]
