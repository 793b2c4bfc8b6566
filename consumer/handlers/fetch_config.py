"""fetch-config: the result is the request; the server commits it before it acks, so it cannot be lost."""

from broker.contract.commands.fetch_config import FETCH_CONFIG, FetchConfig, FetchConfigData
from broker.contract.messages import Command
from consumer.handler import Context, Handler, Interruption, Result

__all__ = [
    "HANDLER",
]


def _execute(command: Command, parameters: FetchConfig, context: Context) -> Result:
    return Result(
        "The configuration of the agent's group was requested; the server sends it as a separate command.",
        FetchConfigData(),
    )


HANDLER = Handler(FETCH_CONFIG, Interruption.RERUN, FetchConfig, _execute)
