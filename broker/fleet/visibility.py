"""What of a ledger a principal may see: all of it, or the agents in its groups and what belongs to them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from broker.enrolment.enrolment_states import EnrolmentState, certificate_ends
from broker.fleet.models import AgentView, CommandFilter
from broker.fleet.patterns import is_pattern
from broker.fleet.presence import known_now
from broker.fleet.targets import ALL_AGENTS, GROUP_TARGET, UnknownAgent
from broker.fleet.views import view_of_agent
from broker.ledger.agents import AgentRow
from broker.ledger.commands import LedgerRow, UnknownCommand
from broker.ledger.groups import check_group_name
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation, UnknownOperation
from broker.suggestions import did_you_mean

__all__ = [
    "Visible",
]


_HIDDEN = "some agents"


class Visible:
    """What a principal sees; with `groups`, what belongs to no agent in them does not exist for it."""

    def __init__(self, ledger: Ledger, groups: frozenset[str] | None) -> None:
        self._ledger = ledger
        self.groups = groups

    def require(self, which: CommandFilter) -> None:
        """Raise UnknownAgent or UnknownOperation for a filter that names what does not exist."""
        if which.agent is not None:
            self.agent(which.agent)
        if which.operation is not None:
            self.operation(which.operation)

    def command(self, command_id: str) -> LedgerRow:
        """Return one command; raises UnknownCommand."""
        row = self._ledger.get(command_id)
        if self.groups is not None and self._ledger.known_agent(row.agent, self.groups) is None:
            raise UnknownCommand(f"No command has the id {command_id[:128]!r}; `acm commands` lists them.")
        return row

    def agent(self, name: str) -> AgentRow:
        """Return one agent; raises UnknownAgent."""
        row = self._ledger.known_agent(name, self.groups)
        if row is None:
            similar = did_you_mean(name, self._names())
            raise UnknownAgent(f"Unknown agent {name[:80]!r}; `acm agents` lists the known ones.{similar}")
        return row

    def agents_shown(self, rows: list[AgentRow]) -> list[AgentView]:
        """Return agents as they are shown: with their enrolments, and of their groups those that may be seen."""
        database, now, names = self._ledger.database, self._ledger.now(), [row.name for row in rows]
        ends, groups = certificate_ends(database, names), self._ledger.groups.of(names)

        def shown(row: AgentRow) -> AgentView:
            if row.status is not None and row.status.groups is not None:
                row = replace(row, status=replace(row.status, groups=tuple(filter(self.has_group, row.status.groups))))
            member_of = [it for it in groups.get(row.name, ()) if self.has_group(it)]
            end = ends.get(row.name)
            enrolment = EnrolmentState.of(end, now) if row.name in ends else None
            return view_of_agent(row, member_of, enrolment, end)

        return list(map(shown, known_now(database, rows)))

    def operation(self, operation_id: str) -> Operation:
        """Return one operation as it is shown; raises UnknownOperation."""
        operation = self._ledger.operations.get(operation_id)
        if self.groups is not None and not self._ledger.operations.concerns(operation_id, self.groups):
            raise UnknownOperation(f"No operation has the id {operation_id[:128]!r}; `acm operation list` lists them.")
        return self.operations_shown([operation])[0]

    def operations_shown(self, operations: Sequence[Operation]) -> list[Operation]:
        """Return operations as they are shown: without a target that names agents or a group which may not be seen."""
        members = self.members()
        if members is None:
            return list(operations)
        return [it if self._is_seen(it.target, members) else replace(it, target=_HIDDEN) for it in operations]

    def has_group(self, group: str) -> bool:
        """Whether a group may be seen."""
        return self.groups is None or group in self.groups

    def require_group(self, group: str) -> None:
        """Raise InvalidName for what is not the name of a group, and UnknownAgent for one that may not be seen."""
        check_group_name(group)
        if not self.has_group(group):
            raise UnknownAgent(f"There is no group {group!r}.", code="unknown_group")

    def members(self) -> set[str] | None:
        """Return the agents that may be seen; None if all may."""
        if self.groups is None:
            return None
        return {name for group in self.groups for name in self._ledger.groups.members(group)}

    def _is_seen(self, target: str, members: set[str]) -> bool:
        if target == ALL_AGENTS:
            return True
        if target.startswith(GROUP_TARGET):
            return self.has_group(target.removeprefix(GROUP_TARGET))
        return all(
            any(fnmatchcase(name, word) for name in members) if is_pattern(word) else word in members
            for word in target.split(",")
        )

    def _names(self) -> Iterable[str]:
        members = self.members()
        return self._ledger.agent_names() if members is None else members
