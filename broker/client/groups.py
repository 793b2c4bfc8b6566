"""The synchronous calls about groups."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from broker.client import group_calls
from broker.client.calls import Call
from broker.fleet.models import GroupView, OperationView

__all__ = [
    "GroupClient",
]


_Answer = TypeVar("_Answer")


class GroupClient(ABC):
    """The part of `Client` for groups."""

    def groups(self) -> tuple[GroupView, ...]:
        """Return all groups, in order of name."""
        return self._do(group_calls.for_groups()).items

    def group(self, name: str) -> GroupView:
        """Return one group."""
        return self._do(group_calls.for_group(name))

    def add_to_group(self, group: str, agents: Sequence[str], *, allow_unknown: bool = False) -> GroupView:
        """Add agents to a group, which exists from its first member on; return it."""
        return self._do(group_calls.change_of_group(group, "add", agents, allow_unknown=allow_unknown))

    def remove_from_group(self, group: str, agents: Sequence[str]) -> GroupView:
        """Remove agents from a group; return it."""
        return self._do(group_calls.change_of_group(group, "remove", agents))

    def configure_group(self, group: str, sha256: str) -> OperationView:
        """Make the stored file with this SHA-256 the configuration of a group, and send it to the members."""
        return self._do(group_calls.to_configure_group(group, sha256))

    @abstractmethod
    def _do(self, call: Call[_Answer]) -> _Answer:
        """Return the answer to a call."""
