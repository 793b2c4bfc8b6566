"""restart-agent: the managed service, or the agent's own process where no service is configured, starts anew."""

from broker.contract.commands.restart_agent import RestartAgent, RestartAgentData
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.handlers.base import AgentRestart, Context, Handler, Interruption, Result
from consumer.ports import StoredCommand

__all__ = ["HANDLER"]


def _execute(command: Command, parameters: RestartAgent, context: Context) -> Result | AgentRestart:
    before = context.service.state()
    if before.kind == "none":
        return AgentRestart()
    after = context.service.restart(context.deadline)
    data = RestartAgentData(after.kind, before.incarnation, after.incarnation)
    if not after.running or after.incarnation == before.incarnation:
        return Result("The service was told to restart, but no new incarnation runs.", data, ErrorCode.FAILED)
    return Result("The service was restarted: a new incarnation runs.", data)


def _probe(stored: StoredCommand, context: Context) -> Result:
    """The store's lock lets one process live at a time: a new incarnation here means that the old one is gone."""
    if context.service.state().kind != "none":
        return Result(
            "The agent died while it restarted the service; whether the service was restarted is unknown.",
            code=ErrorCode.INTERRUPTED,
        )
    by_command = context.restarted_by == stored.command.id
    data = RestartAgentData("none", stored.begun_by, context.incarnation, "command" if by_command else "outside")
    if by_command:
        return Result("The agent was restarted: a new incarnation runs.", data)
    return Result("A new incarnation of the agent runs, though something else than this command started it.", data)


HANDLER = Handler("restart-agent", Interruption.PROBE, RestartAgent, _execute, _probe)
