"""The groups of a ledger, as a principal may see and change them."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from broker.contract.topics import check_agent_name
from broker.fleet.models import GroupView, OperationView
from broker.fleet.sending_on_ledger import LedgerSending
from broker.fleet.targets import UnknownAgent, resolve_target
from broker.fleet.views import view_of_operation
from broker.ledger.enqueue import CommandRequest
from broker.ledger.operations import Operation

__all__ = [
    "LedgerGroups",
]


class LedgerGroups(LedgerSending):
    """The part of `LedgerFleet` for groups, beside that for sending."""

    def groups(self) -> tuple[GroupView, ...]:
        """Return all groups, in order of name."""
        groups = self._ledger.groups.all()
        return tuple(GroupView(name, tuple(agents)) for name, agents in groups.items() if self._visible.has_group(name))

    def group(self, name: str) -> GroupView:
        """Return one group, as `Fleet.group` says."""
        self._visible.require_group(name)
        agents = self._ledger.groups.members(name)
        if not agents and not self._ledger.groups.is_configured(name):
            raise UnknownAgent(
                f"There is no group {name!r}: no agent is in it. `acm group list` shows all groups.",
                code="unknown_group",
            )
        return GroupView(name, tuple(agents))

    def add_to_group(self, group: str, agents: Sequence[str], *, allow_unknown: bool = False) -> GroupView:
        """Add agents to a group, as `Fleet.add_to_group` says."""
        self._visible.require_group(group)
        for name in agents:
            check_agent_name(name)
            if not (allow_unknown and self._groups is None):
                self._visible.agent(name)
        return self._changed_group(self._ledger.groups.add, group, agents)

    def remove_from_group(self, group: str, agents: Sequence[str]) -> GroupView:
        """Remove agents from a group, as `Fleet.remove_from_group` says."""
        self._visible.require_group(group)
        return self._changed_group(self._ledger.groups.remove, group, [check_agent_name(it) for it in agents])

    def configure_group(self, group: str, sha256: str) -> OperationView:
        """Make a stored file the configuration of a group, as `Fleet.configure_group` says."""
        self._visible.require_group(group)
        target = resolve_target(self._ledger, None, group, everyone=False, allow_unknown=False, within=self._groups)
        artifact = self._ledger.blobs.find(sha256).artifact
        self._ledger.groups.configure(group, artifact)
        parameters = {"artifact": msgspec.to_builtins(artifact), "group": group}
        wanted = CommandRequest("apply-centralized-configuration", parameters, self._origin)

        def also(connection: Any, operation: Operation) -> None:
            self._also(connection, view_of_operation(operation))

        return view_of_operation(self._add_operation(target, wanted, also))

    def _changed_group(self, change: Callable[..., None], group: str, agents: Sequence[str]) -> GroupView:
        views: list[GroupView] = []

        def also(connection: Any, members: list[str]) -> None:
            views.append(GroupView(group, tuple(members)))
            self._also(connection, views[-1])

        change(group, agents, also)
        return views[-1]
