"""start-agent: the managed service runs."""

from broker.contract.commands.start_agent import StartAgent
from broker.contract.messages import Command
from consumer.handlers.base import Context, Handler, Interruption, Result

__all__ = ["HANDLER"]


def _execute(command: Command, parameters: StartAgent, context: Context) -> Result:
    state = context.service.start(context.deadline)
    return Result("The service runs.", {"service": state.kind, "incarnation": state.incarnation})


HANDLER = Handler("start-agent", Interruption.RERUN, StartAgent, _execute)
