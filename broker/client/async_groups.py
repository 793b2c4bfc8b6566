"""The asynchronous calls about groups; they differ in `async` and `await` alone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from broker.client import group_calls
from broker.client.calls import Call
from broker.fleet.models import GroupView, OperationView

__all__ = [
    "AsyncGroupClient",
]


_Answer = TypeVar("_Answer")


class AsyncGroupClient(ABC):
    """The part of `AsyncClient` for groups."""

    async def groups(self) -> tuple[GroupView, ...]:
        """Return all groups, in order of name."""
        return (await self._do(group_calls.for_groups())).items

    async def group(self, name: str) -> GroupView:
        """Return one group."""
        return await self._do(group_calls.for_group(name))

    async def add_to_group(self, group: str, agents: Sequence[str], *, allow_unknown: bool = False) -> GroupView:
        """Add agents to a group, which exists from its first member on; return it."""
        return await self._do(group_calls.change_of_group(group, "add", agents, allow_unknown=allow_unknown))

    async def remove_from_group(self, group: str, agents: Sequence[str]) -> GroupView:
        """Remove agents from a group; return it."""
        return await self._do(group_calls.change_of_group(group, "remove", agents))

    async def configure_group(self, group: str, sha256: str) -> OperationView:
        """Make the stored file with this SHA-256 the configuration of a group, and send it to the members."""
        return await self._do(group_calls.to_configure_group(group, sha256))

    @abstractmethod
    async def _do(self, call: Call[_Answer]) -> _Answer:
        """Return the answer to a call."""
