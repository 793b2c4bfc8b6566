"""The server's answer to fetch-config: the configuration of the agent's group, as a command."""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from broker.contract.commands.fetch_config import FETCH_CONFIG, FetchConfigData
from broker.contract.messages import Command, Feedback, Origin
from broker.ledger.damage import decoded
from broker.ledger.enqueue import CommandRequest, draft_command, enqueue
from broker.ledger.groups import configuration_for
from broker.ledger.outcomes import SERVER
from broker.ledger.tables import COMMANDS, IS_OPEN

__all__ = [
    "answer_fetch_config",
]


_ANSWER_EVERY_S = 60.0
_NEWEST = 200  # of an agent's commands, more than it gets within that time


def answer_fetch_config(connection: sa.Connection, agent: str, result: Feedback, now: datetime) -> None:
    """Within a transaction, enqueue the configuration that the result of a fetch-config requests.

    Call it for the result that completes its command, so that an agent gets no more answers than it was sent such
    commands. The same file is not sent again while a command with it is open, nor within a minute of an answer.
    """
    if not result.data or result.data.get("asks_for") != FetchConfigData().asks_for:
        return
    body = connection.scalar(sa.select(COMMANDS.c.body).where(COMMANDS.c.id == result.command_id))
    command = decoded(body, Command)
    if command is None or command.type != FETCH_CONFIG:
        return
    found = configuration_for(connection, agent)
    if found is None:
        return
    group, artifact = found
    answered_since = now.timestamp() - _ANSWER_EVERY_S
    is_answer = COMMANDS.c.body.contains(f'"module":"{SERVER}"', autoescape=True)
    of_agent = COMMANDS.c.agent == agent
    newest = sa.select(COMMANDS.c.id).where(of_agent).order_by(COMMANDS.c.epoch.desc(), COMMANDS.c.number.desc())
    is_recent = COMMANDS.c.created_at.between(answered_since, now.timestamp())
    recent = sa.and_(COMMANDS.c.id.in_(newest.limit(_NEWEST)), is_recent, is_answer)
    sent = COMMANDS.select().where(sa.or_(sa.and_(of_agent, IS_OPEN), recent))
    sent = sent.where(COMMANDS.c.body.contains(f'"{artifact.url}"', autoescape=True)).limit(1)
    if connection.execute(sent).one_or_none() is None:
        parameters = {"artifact": msgspec.to_builtins(artifact), "group": group}
        origin = Origin(f"group {group}", SERVER)
        draft, body = draft_command(CommandRequest("apply-centralized-configuration", parameters, origin), now)
        enqueue(connection, agent, draft, body, now)
