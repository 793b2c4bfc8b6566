"""The ledger's rows as what an operator sees of them."""

from collections.abc import Iterable
from datetime import datetime

from broker.command_types import parameters_of
from broker.contract.codec import to_json
from broker.contract.commands import mask_secret_parameters
from broker.contract.messages import Command, JsonObject, Origin
from broker.contract.states import CommandState, Outcome
from broker.contract.trace_context import TraceContext
from broker.fleet.models import AgentView, CommandView, OperationProgress, OperationView, ServerView
from broker.fleet.report_models import UnmatchedResultView
from broker.ledger.agents import AgentRow
from broker.ledger.commands import LedgerRow
from broker.ledger.operations import Operation, Progress
from broker.ledger.server_lock import RunningServer
from broker.ledger.unmatched_results import UnmatchedResult

__all__ = [
    "view_of_agent",
    "view_of_command",
    "view_of_new",
    "view_of_operation",
    "view_of_progress",
    "view_of_server",
    "view_of_unmatched",
]


def view_of_command(row: LedgerRow) -> CommandView:
    """Return a command with its state and its result, secret parameters masked."""
    command = row.command
    return CommandView(
        id=command.id,
        agent=row.agent,
        type=command.type,
        state=row.state,
        outcome=None if row.result is None else Outcome(row.result.get("outcome", Outcome.ERROR)),
        cancel_requested=row.cancel_requested,
        created_at=command.created_at,
        expires_at=command.expires_at,
        sent_at=row.sent_at,
        stored_at=row.stored_at,
        running_at=row.running_at,
        completed_at=row.completed_at,
        operation_id=row.operation_id,
        command=_masked(command, to_json(command)) or {},
        result=_masked(command, row.result),
        verdict_of_server=_masked(command, row.verdict),
        trace_id=None if row.trace is None else row.trace.trace_id,
    )


def view_of_new(agent: str, command: Command, trace: TraceContext | None = None) -> CommandView:
    """Return a command that was just added to the ledger."""
    return view_of_command(LedgerRow(command, agent, CommandState.QUEUED, False, None, None, trace=trace))


def view_of_agent(
    row: AgentRow, groups: Iterable[str], enrolment: str | None, certificate_until: datetime | None
) -> AgentView:
    """Return an agent with its last status, its groups and the state of its enrolments."""
    return AgentView(
        name=row.name,
        state=row.state,
        seen_at=row.seen_at,
        open_commands=row.open_commands,
        name_conflict=row.name_conflict,
        groups=tuple(groups),
        enrolment=enrolment,
        certificate_until=certificate_until,
        status=to_json(row.status) if row.status else None,
    )


def view_of_operation(operation: Operation) -> OperationView:
    """Return an operation without its commands."""
    return OperationView(operation.id, operation.command_type, operation.target, operation.size, operation.created_at)


def view_of_progress(operation: Operation, progress: Progress) -> OperationProgress:
    """Return an operation with the counts of its commands."""
    return OperationProgress(view_of_operation(operation), progress.counts(), progress.done)


def view_of_server(server: RunningServer) -> ServerView:
    """Return a server that runs on the ledger."""
    return ServerView(
        server.client_id,
        server.host,
        server.pid,
        server.started_at,
        server.connection_at,
        server.connection_problem,
    )


def view_of_unmatched(unmatched: UnmatchedResult) -> UnmatchedResultView:
    """Return an unmatched result, with the secret parameters masked of the command that it echoes."""
    return UnmatchedResultView(
        unmatched.agent,
        unmatched.command_id,
        unmatched.digest,
        unmatched.received_at,
        _masked_echo(unmatched),
    )


def _masked_echo(unmatched: UnmatchedResult) -> JsonObject:
    echo = unmatched.result.get("command") or {}
    command_type, parameters = echo.get("type"), echo.get("parameters")
    if not isinstance(command_type, str) or not isinstance(parameters, dict):
        return unmatched.result
    origin = Origin(unmatched.agent, "")
    command = Command(unmatched.command_id, command_type, parameters, origin, unmatched.received_at)
    return _masked(command, unmatched.result) or {}


def _masked(command: Command, document: JsonObject | None) -> JsonObject | None:
    masked: JsonObject | None = mask_secret_parameters(command, document, parameters_of(command.type))
    return masked
