"""What the ledger has now, as metrics: a few statements, whatever it holds."""

from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa

from broker.contract.states import AgentState, CommandState
from broker.ledger.database import Database
from broker.ledger.summary import ledger_summary
from broker.ledger.tables import (
    AGENTS,
    BLOBS,
    COMMANDS,
    DAMAGED_ROWS,
    IS_DUE,
    IS_OPEN,
    REFUSED_MESSAGES,
    SERVERS,
    in_state,
)
from broker.metrics.values import Family, Kind, Metric, gauge

__all__ = [
    "ledger_gauges",
]


_OPEN = tuple(state for state in CommandState if state is not CommandState.COMPLETED)
_LISTED = tuple(state for state in AgentState)
_ANSWER_S = 10.0
_OLDEST = {state: sa.select(sa.func.min(COMMANDS.c.created_at)).where(in_state(state)) for state in _OPEN}
_DUE = sa.select(sa.func.count()).where(IS_DUE)
_QUEUES = sa.select(sa.func.count().label("length")).where(IS_OPEN).group_by(COMMANDS.c.agent).subquery()
_LONGEST = sa.select(sa.func.max(_QUEUES.c.length))
_OVERDUE = sa.select(sa.func.count()).where(AGENTS.c.attempts > 0)
_BLOBS = sa.select(sa.func.sum(BLOBS.c.size)).where(BLOBS.c.sha256.is_not(None))
_UNCONNECTED = sa.select(sa.func.count()).where(SERVERS.c.connection_problem.is_not(None))

AGENTS_BY_STATE = Metric("acm_agents", Kind.GAUGE, "Agents in the ledger by their state.", ("state",))
OPEN = Metric("acm_open_commands", Kind.GAUGE, "Commands without a result by their state.", ("state",))
OLDEST = Metric(
    "acm_oldest_command_age_seconds",
    Kind.GAUGE,
    "Age of the oldest command in each state, from its creation; 0 if there is none.",
    ("state",),
)
DUE = Metric("acm_due_commands", Kind.GAUGE, "Commands that the server is to publish now, or once it may.")
LONGEST = Metric("acm_longest_queue_commands", Kind.GAUGE, "Open commands of the agent that has most of them.")
OVERDUE = Metric(
    "acm_unanswering_agents", Kind.GAUGE, "Agents that did not answer in time, so that they are sent all again."
)
SIZE = Metric("acm_ledger_size_bytes", Kind.GAUGE, "Size of the ledger's database, with its write-ahead log in SQLite.")
FREE = Metric("acm_ledger_free_bytes", Kind.GAUGE, "Free pages in the file of SQLite; 0 for PostgreSQL.")
BLOB_SIZE = Metric("acm_blobs_size_bytes", Kind.GAUGE, "Size of the stored files that agents can fetch.")
SET_ASIDE = Metric(
    "acm_rows_set_aside",
    Kind.GAUGE,
    "Damaged rows, and messages that the database refuses, which wait for an operator.",
    ("kind",),
)
SERVERS_AWAY = Metric(
    "acm_servers_not_connected", Kind.GAUGE, "Servers that have recorded that they are not connected to the broker."
)


def ledger_gauges(database: Database, now: datetime) -> Iterator[Family]:
    """Read the metrics of a ledger in one snapshot, by indexes of what is open. Raises LedgerError."""
    with database.answering_within(_ANSWER_S), database.reading() as connection:
        summary = ledger_summary(connection, None, now)
        yield gauge(AGENTS_BY_STATE, {(str(it),): summary.agents.get(it, 0) for it in _LISTED})
        yield gauge(OPEN, {(str(it),): summary.open_commands.get(it, 0) for it in _OPEN})
        oldest = {state: connection.scalar(query) for state, query in _OLDEST.items()}
        yield gauge(OLDEST, {(str(state),): _age(since, now) for state, since in oldest.items()})
        for metric, query in ((DUE, _DUE), (LONGEST, _LONGEST), (OVERDUE, _OVERDUE), (BLOB_SIZE, _BLOBS)):
            yield gauge(metric, float(connection.scalar(query) or 0))
        yield gauge(SERVERS_AWAY, connection.scalar(_UNCONNECTED) or 0)
        aside = {"damaged": DAMAGED_ROWS, "refused": REFUSED_MESSAGES}
        counts = {name: sa.select(sa.func.count()).select_from(table) for name, table in aside.items()}
        yield gauge(SET_ASIDE, {(name,): connection.scalar(count) or 0 for name, count in counts.items()})
    yield gauge(SIZE, database.size_bytes())
    yield gauge(FREE, database.free_bytes())


def _age(since: float | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, now.timestamp() - since)
