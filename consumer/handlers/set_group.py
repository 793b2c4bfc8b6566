"""set-group: set the agent's groups, which its status reports to the server."""

from broker.contract.commands.set_group import SetGroup, SetGroupData
from broker.contract.messages import Command
from consumer.handler import Context, Handler, Interruption, Result
from consumer.store.groups import Groups

__all__ = [
    "HANDLER",
]


def _execute(command: Command, parameters: SetGroup, context: Context) -> Result:
    groups = tuple(dict.fromkeys(parameters.groups))
    Groups(context.state).set(groups)
    message = f"The agent is in the groups: {', '.join(groups)}." if groups else "The agent is not in any group."
    return Result(message, SetGroupData(groups))


HANDLER = Handler("set-group", Interruption.RERUN, SetGroup, _execute)
