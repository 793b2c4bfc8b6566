"""stop-agent: the managed service is stopped and stays so; the agent itself stays reachable."""

from broker.contract.commands.stop_agent import StopAgent, StopAgentData
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.handlers.base import Context, Handler, Interruption, Result

__all__ = ["HANDLER"]


def _execute(command: Command, parameters: StopAgent, context: Context) -> Result:
    state = context.service.stop(context.deadline)
    data = StopAgentData(state.kind)
    if state.running:
        return Result("The service was told to stop, but it still runs.", data, ErrorCode.FAILED)
    return Result("The service is stopped and stays so until start-agent.", data)


HANDLER = Handler("stop-agent", Interruption.RERUN, StopAgent, _execute)
