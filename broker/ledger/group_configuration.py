"""The server's answer to fetch-config: the configuration of the agent's group, as a command."""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from broker.contract.commands.fetch_config import FetchConfigData
from broker.contract.messages import Feedback, Origin
from broker.ledger.enqueue import CommandRequest, draft_command, enqueue
from broker.ledger.groups import configuration_for
from broker.ledger.tables import COMMANDS, IS_OPEN, SERVER

__all__ = [
    "enqueue_group_configuration",
]


def enqueue_group_configuration(connection: sa.Connection, agent: str, result: Feedback, now: datetime) -> None:
    """Within a transaction, enqueue the configuration that a result requests, unless an open command carries it."""
    if not result.data or result.data.get("asks_for") != FetchConfigData().asks_for:
        return
    found = configuration_for(connection, agent)
    if found is None:
        return
    group, artifact = found
    open_command = COMMANDS.select().where(COMMANDS.c.agent == agent, IS_OPEN)
    open_command = open_command.where(COMMANDS.c.body.contains(f'"{artifact.url}"', autoescape=True)).limit(1)
    if connection.execute(open_command).one_or_none() is None:
        parameters = {"artifact": msgspec.to_builtins(artifact), "group": group}
        origin = Origin(f"group {group}", SERVER)
        draft, body = draft_command(CommandRequest("apply-centralized-configuration", parameters, origin), now)
        enqueue(connection, agent, draft, body, now)
