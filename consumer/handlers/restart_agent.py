"""restart-agent: restart the managed service, or the agent's own process if no service is configured."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from broker.contract.commands.restart_agent import RestartAgent, RestartAgentData
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from broker.system.files import write_durably
from consumer.errors import ServiceError
from consumer.handler import AgentRestart, Context, Handler, Interruption, Result
from consumer.handlers.preconditions import wait_until_allowed
from consumer.ports import ServiceState, StoredCommand

__all__ = [
    "AgentProcess",
    "handler",
]


_POLL_INTERVAL_S = 0.2


# The mark names the command that was about to restart the service, and the incarnation that ran then.
# design.md: "Success means observed."
def _mark_path(context: Context) -> Path:
    return context.state / "service-restart"


def _write_mark(path: Path, command_id: str, incarnation: str | None) -> None:
    try:
        write_durably(path, json.dumps([command_id, incarnation]).encode())
    except OSError as error:
        raise ServiceError(
            f"The service was not restarted: {path}: {error.strerror}.", code="mark_not_written"
        ) from error


def _read_mark(path: Path, command_id: str) -> tuple[bool, str | None]:
    """Return whether this command had begun to restart the service, and the incarnation that ran before."""
    try:
        marked_id, incarnation = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False, None
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise ServiceError(
            f"It is not known whether the service was restarted: {path}: {reason}.", code="mark_not_read"
        ) from error
    return marked_id == command_id, incarnation


@dataclass(frozen=True)
class AgentProcess:
    """This process of the agent. `restarted_by` is the id of the command that requested it, or None."""

    incarnation: str
    restarted_by: str | None


def handler(process: AgentProcess, settle_s: float, upgrade_on_trial: Callable[[], bool]) -> Handler[RestartAgent]:
    """Return the handler; it refuses while `upgrade_on_trial()` is true.

    A restarted service must stay up for `settle_s` seconds.
    """
    return Handler(
        "restart-agent",
        Interruption.PROBE,
        RestartAgent,
        partial(_execute, upgrade_on_trial),
        partial(_probe, process, settle_s),
    )


def _execute(
    upgrade_on_trial: Callable[[], bool], command: Command, parameters: RestartAgent, context: Context
) -> Result | AgentRestart:
    failed = wait_until_allowed(parameters.delay_s, context, upgrade_on_trial)
    if failed is not None:
        return failed
    before = context.service.state()
    if before.kind == "none":
        return AgentRestart()
    _write_mark(_mark_path(context), command.id, before.incarnation)
    context.observer.reached("restart-agent.begun")
    return _result(before, context.service.restart(context.deadline))


def _result(before: ServiceState, after: ServiceState) -> Result:
    stop = after.stop
    data = RestartAgentData(
        after.kind,
        before.incarnation,
        after.incarnation,
        killed=stop.killed if stop else None,
        stop_grace_s=stop.grace_s if stop else None,
    )
    if not after.running or after.incarnation == before.incarnation:
        return Result("No new incarnation of the service runs after the restart.", data, ErrorCode.FAILED)
    killed = f" The old one {stop.in_words()}." if stop and stop.killed else ""
    return Result(f"The service was restarted: a new incarnation runs.{killed}", data)


def _probe(process: AgentProcess, settle_s: float, stored: StoredCommand, context: Context) -> Result:
    if context.service.state().kind == "none":
        return _probe_agent(process, stored)
    return _probe_service(settle_s, stored, context)


def _probe_agent(process: AgentProcess, stored: StoredCommand) -> Result:
    """The store's lock allows one process at a time: since this one runs, the old one has ended."""
    by_command = process.restarted_by == stored.command.id
    data = RestartAgentData("none", stored.begun_by, process.incarnation, "command" if by_command else "outside")
    if by_command:
        return Result("The agent was restarted: a new incarnation runs.", data)
    return Result("A new incarnation of the agent runs, but something other than this command started it.", data)


def _probe_service(settle_s: float, stored: StoredCommand, context: Context) -> Result:
    begun, previous = _read_mark(_mark_path(context), stored.command.id)
    if not begun:
        return Result("The agent died before this command restarted the service.", code=ErrorCode.INTERRUPTED)
    state = _await_settled(settle_s, context)
    data = RestartAgentData(state.kind, previous, state.incarnation)
    if state.running and state.incarnation != previous:
        return Result("A new incarnation of the service runs, although the agent died while it restarted it.", data)
    what = "the old incarnation still runs" if state.running else "the service does not run"
    return Result(f"The agent died while it restarted the service, and {what}.", data, ErrorCode.INTERRUPTED)


def _await_settled(settle_s: float, context: Context) -> ServiceState:
    """Return the state once a restart in progress has ended: by systemd, or by the agent for a child process.

    A service that runs must still run `settle_s` seconds later.
    """
    while True:
        state = context.service.state()
        interrupted = context.cancelled.wait(settle_s if state.running else _POLL_INTERVAL_S)
        now = context.service.state()
        if interrupted or (now.running and now == state) or context.clock.monotonic() >= context.deadline:
            return now
