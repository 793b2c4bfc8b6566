"""Sending commands by adding them to a ledger, as a principal may."""

from dataclasses import replace
from typing import Any

from broker.contract.messages import Command, Origin
from broker.fleet.checks import check_parameters, check_supported
from broker.fleet.models import SendRequest, Sent
from broker.fleet.retrying import Again, again, failed_again
from broker.fleet.targets import Target, resolve_target
from broker.fleet.traced_sending import Creating
from broker.fleet.views import view_of_new, view_of_operation
from broker.fleet.visibility import Visible
from broker.ledger.agents import AgentRow
from broker.ledger.also import Also
from broker.ledger.enqueue import CommandRequest, draft_command
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation

__all__ = [
    "LedgerSending",
]


class LedgerSending:
    """The part of `LedgerFleet` that adds commands to the ledger."""

    def __init__(
        self, ledger: Ledger, origin: Origin, groups: frozenset[str] | None, also: Also[Any], creating: Creating
    ) -> None:
        self._ledger = ledger
        self._origin = origin
        self._groups = groups
        self._visible = Visible(ledger, groups)
        self._also = also
        self._creating = creating

    def send(self, request: SendRequest) -> Sent:
        """Add commands to the ledger, as `Fleet.send` says; one for a name of one agent, else an operation."""
        target = resolve_target(
            self._ledger,
            request.agents or None,
            request.group,
            everyone=request.all,
            allow_unknown=request.allow_unknown,
            within=self._groups,
        )
        wanted = CommandRequest(request.type, request.parameters, self._origin, request.expires_in_s, request.timeout_s)
        warnings = () if request.force else check_supported(request.type, target.agents, self._rows_of(target))
        check_parameters(wanted)
        if request.dry_run:
            draft_command(wanted, self._ledger.now())
            return Sent(agents=tuple(target.agents), warnings=warnings)
        return (self._send_one if target.single else self._send_many)(target, wanted, warnings)

    def _rows_of(self, target: Target) -> list[AgentRow]:
        if target.single:
            row = self._ledger.known_agent(target.agents[0])
            return [] if row is None else [row]
        names = set(target.agents)
        return [row for row in self._ledger.agents() if row.name in names]

    def _send_one(self, target: Target, wanted: CommandRequest, warnings: tuple[str, ...]) -> Sent:
        (agent,) = target.agents

        def sent(command: Command) -> Sent:
            return Sent(command=view_of_new(agent, command, span.context), warnings=warnings)

        with self._creating(wanted.command_type) as span:
            traced = replace(wanted, trace=span.context)
            command = self._ledger.add_command(agent, traced, lambda connection, it: self._also(connection, sent(it)))
            span.note_command(command.id)
        return sent(command)

    def _send_many(self, target: Target, wanted: CommandRequest, warnings: tuple[str, ...]) -> Sent:
        def sent(operation: Operation) -> Sent:
            return Sent(operation=view_of_operation(operation), warnings=warnings)

        def also(connection: Any, operation: Operation) -> None:
            self._also(connection, sent(operation))

        return sent(self._add_operation(target, wanted, also))

    def retry(self, command_id: str) -> Sent:
        """Send a command again that has ended, as `Fleet.retry` says."""
        wanted = self.again(command_id)
        return self._send_one(wanted.target, wanted.request, ())

    def again(self, command_id: str) -> Again:
        """Return what `retry` sends; raises as it does."""
        return again(self._visible.command(command_id), self._origin)

    def retry_operation(self, operation_id: str) -> Sent:
        """Send those of its commands again that have failed, as `Fleet.retry_operation` says."""
        wanted = self.operation_again(operation_id)
        return self._send_many(wanted.target, wanted.request, ())

    def operation_again(self, operation_id: str) -> Again:
        """Return what `retry_operation` sends; raises as it does."""
        return failed_again(self._ledger, self._visible.operation(operation_id), self._groups, self._origin)

    def _add_operation(self, target: Target, wanted: CommandRequest, also: Also[Operation]) -> Operation:
        with self._creating(wanted.command_type) as span:
            traced = replace(wanted, trace=span.context)
            operation = self._ledger.add_operation(target.agents, target.description, traced, also)
            span.note_operation(operation.id, operation.size)
        return operation
