"""set-group: the agent is in these groups; its status tells the server."""

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
    said = f"The agent is in the groups: {', '.join(groups)}." if groups else "The agent is in no group."
    return Result(said, SetGroupData(groups))


HANDLER = Handler("set-group", Interruption.RERUN, SetGroup, _execute)
