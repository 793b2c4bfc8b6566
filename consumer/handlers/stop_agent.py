"""stop-agent: stop the managed service until it is started again; the agent itself stays reachable."""

from collections.abc import Callable

from broker.contract.commands.stop_agent import StopAgent, StopAgentData
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.handler import Context, Handler, Interruption, Result
from consumer.handlers.preconditions import wait_until_allowed

__all__ = [
    "handler",
]


def handler(upgrade_on_trial: Callable[[], bool]) -> Handler[StopAgent]:
    """Return the handler; it refuses while `upgrade_on_trial()` is true."""

    def execute(command: Command, parameters: StopAgent, context: Context) -> Result:
        failed = wait_until_allowed(parameters.delay_s, context, upgrade_on_trial)
        if failed is not None:
            return failed
        state = context.service.stop(context.deadline)
        stop = state.stop
        data = StopAgentData(state.kind, stop.killed, stop.grace_s) if stop else StopAgentData(state.kind)
        if state.running:
            return Result("The service still runs after the stop.", data, ErrorCode.FAILED)
        if stop and stop.killed:
            return Result(f"The service is stopped: it {stop.in_words()}.", data)
        return Result("The service is stopped.", data)

    return Handler("stop-agent", Interruption.RERUN, StopAgent, execute)
