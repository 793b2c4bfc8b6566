"""Records all that arrived in a turn of the server: few statements, however many agents have said how much."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from broker.contract.messages import Feedback, Status
from broker.ledger.agents import known_among, lock_agents
from broker.ledger.feedback import Recorded, record_feedback
from broker.ledger.renumbering import begun_epochs
from broker.ledger.status import RecordedStatuses, record_statuses

__all__ = [
    "RecordedTurn",
    "Said",
    "record_turn",
]


Said = Feedback | Status


@dataclass(frozen=True)
class RecordedTurn:
    """What was recorded of agents' feedback, in order for each agent, and of their statuses.

    `epochs` is how many new epochs of sequence numbers began by it.
    """

    feedback: list[tuple[str, Recorded]]
    statuses: RecordedStatuses
    epochs: int = 0

    @property
    def requests(self) -> dict[str, str]:
        """The ids of the requests to report to send, by agent."""
        of_gaps = {agent: recorded.request for agent, recorded in self.feedback if recorded.request is not None}
        return of_gaps | dict(self.statuses.requests)


def record_turn(
    connection: sa.Connection,
    said: Mapping[str, Sequence[Said]],
    now: datetime,
    *,
    repeated: Collection[str],
    believed: bool,
) -> RecordedTurn:
    """Within a transaction, record what agents have said, by their names, in order for each agent.

    All agents' feedback until their first status is recorded together, then these statuses, then the feedback until the
    next ones, and so on. See `record_feedback` and `record_statuses`.
    """
    parts = {agent: deque(_parts(its)) for agent, its in _of_known(connection, said, repeated).items()}
    lock_agents(connection, list(parts))
    begun = begun_epochs(connection)
    turn = RecordedTurn([], RecordedStatuses([], [], []))
    while parts := {agent: its for agent, its in parts.items() if its}:
        together = {agent: its.popleft() for agent, its in parts.items()}
        feedback = {agent: part.feedback for agent, part in together.items() if part.feedback}
        statuses = {agent: part.status for agent, part in together.items() if part.status}
        if feedback:
            turn.feedback.extend(record_feedback(connection, feedback, now).items())
        if statuses:
            turn.statuses.add(record_statuses(connection, statuses, now, repeated=repeated, believed=believed))
    return replace(turn, epochs=len(begun))


class _Part(NamedTuple):
    """A part of what an agent said: feedback, and the status after it."""

    feedback: list[Feedback]
    status: Status | None


def _parts(said: Sequence[Said]) -> Iterator[_Part]:
    feedback: list[Feedback] = []
    for it in said:
        if isinstance(it, Status):
            yield _Part(feedback, it)
            feedback = []
        else:
            feedback.append(it)
    if feedback:
        yield _Part(feedback, None)


def _of_known(
    connection: sa.Connection, said: Mapping[str, Sequence[Said]], repeated: Collection[str]
) -> Mapping[str, Sequence[Said]]:
    """Return what was said without the last statuses that the broker keeps of agents that are not known any more."""
    kept = {agent for agent in said if agent in repeated and all(_is_last(it) for it in said[agent])}
    unknown = kept and kept - known_among(connection, kept)
    return {agent: its for agent, its in said.items() if agent not in unknown} if unknown else said


def _is_last(said: Said) -> bool:
    return isinstance(said, Status) and not said.online
