"""fetch-config: the result asks the server, which keeps it before it acks it, so that the wish cannot be lost."""

from broker.contract.commands.fetch_config import FetchConfig, FetchConfigData
from broker.contract.messages import Command
from consumer.handler import Context, Handler, Interruption, Result

__all__ = [
    "HANDLER",
]


def _execute(command: Command, parameters: FetchConfig, context: Context) -> Result:
    return Result(
        "The server is asked for the configuration of the agent's group, which comes as a command of its own.",
        FetchConfigData(),
    )


HANDLER = Handler("fetch-config", Interruption.RERUN, FetchConfig, _execute)
