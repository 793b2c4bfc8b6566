"""The answer to fetch-config: the configuration of the agent's group, as a command."""

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
    """Within a transaction, send what a result asks for, unless the same is on its way already."""
    if not result.data or result.data.get("asks_for") != FetchConfigData().asks_for:
        return
    found = configuration_for(connection, agent)
    if found is None:
        return
    group, artifact = found
    on_its_way = COMMANDS.select().where(COMMANDS.c.agent == agent, IS_OPEN)
    on_its_way = on_its_way.where(COMMANDS.c.body.contains(f'"{artifact.url}"', autoescape=True)).limit(1)
    if connection.execute(on_its_way).one_or_none() is None:
        parameters = {"artifact": msgspec.to_builtins(artifact), "group": group}
        origin = Origin(f"group {group}", SERVER)
        draft, body = draft_command(CommandRequest("apply-centralized-configuration", parameters, origin), now)
        enqueue(connection, agent, draft, body, now)
