"""start-agent: start the managed service."""

from collections.abc import Callable

from broker.contract.commands.start_agent import StartAgent, StartAgentData
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.handler import Context, Handler, Interruption, Result
from consumer.handlers.preconditions import wait_until_allowed

__all__ = [
    "handler",
]


def handler(upgrade_on_trial: Callable[[], bool]) -> Handler[StartAgent]:
    """Return the handler; it refuses while `upgrade_on_trial()` is true."""

    def execute(command: Command, parameters: StartAgent, context: Context) -> Result:
        failed = wait_until_allowed(parameters.delay_s, context, upgrade_on_trial)
        if failed is not None:
            return failed
        state = context.service.start(context.deadline)
        data = StartAgentData(state.kind, state.incarnation)
        if not state.running:
            return Result("The service was started but does not run.", data, ErrorCode.FAILED)
        return Result("The service runs.", data)

    return Handler("start-agent", Interruption.RERUN, StartAgent, execute)
