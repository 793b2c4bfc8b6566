"""No statement reads more rows the more commands have ended.

Each statement of the ledger is seen by an event of SQLAlchemy, so a new one is tested without a test of its own.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from broker.app.factories import open_database
from broker.contract.artifacts import Artifact
from broker.contract.messages import Feedback, Origin, Status
from broker.contract.states import ErrorCode, FeedbackKind, Outcome
from broker.ledger.command_pages import WINDOW
from broker.ledger.commands import CommandQuery
from broker.ledger.database import Database
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.pruning import LedgerPruning
from broker.ledger.refused_messages import UnstoredMessage
from broker.ledger.tables import AGENTS, COMMANDS, OPERATIONS, PRUNED_COMMANDS, STRAY_RESULTS, CommandState
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status

AGENTS_IN_LEDGER = [f"web-{number:02d}" for number in range(20)]
ENDED_PER_AGENT = 1000
MOST_ROWS = 600  # an agent has 1,000, and the ledger 20,000
MOST_ROWS_OF_PAGE = 10 * WINDOW  # each is compared with a filter, and some orders sort it
MOST_OF_AGENT = 2.1 * ENDED_PER_AGENT  # PostgreSQL counts each row in two places of its plan
STEPS_PER_ROW = 5  # to skip it; SQLite takes more to return or change it
STEPS_PER_COUNT = 10
EARLY = TurnedClock().now() + timedelta(minutes=5)
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"), expires_in_s=600.0)
FILTERS: list[dict[str, Any]] = [
    {"command_type": "restart-agent"},
    {"command_type": "none-such"},
    {"outcome": Outcome.SUCCESS},
    {"outcome": Outcome.ERROR},
    {"outcome": Outcome.ERROR, "command_type": "restart-agent"},
    {"since": EARLY},
    {"until": EARLY},
    {"since": EARLY, "until": EARLY + timedelta(minutes=1)},
    {"command_type": "restart-agent", "until": EARLY},
]
# They read all that is open, or everything, because that is their purpose.
READ_EVERYTHING = {"damaged_rows", "settle_restored"}
Rows = Mapping[str, float]


class Called:
    """An object whose public methods are remembered when they are called."""

    def __init__(self, real: Any) -> None:
        self._real, self.called = real, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        return getattr(self._real, name)

    def not_called(self) -> set[str]:
        methods = {name for name, it in vars(type(self._real)).items() if callable(it) and not name.startswith("_")}
        return methods - self.called


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    """A ledger with many commands that have ended, of few agents, and as many of everything else that accumulates."""
    with open_database(ledger_url) as database:
        ledger = Ledger(database, now=clock.now)
        operation = ledger.add_operation(AGENTS_IN_LEDGER, "all", REQUEST)
        for agent in AGENTS_IN_LEDGER:
            record_status(ledger, status(agent))
        for agent, command in ledger.claim_due(100).commands:
            record_feedback(ledger, agent, [replace(result(command.id), agent=agent)])
        with database.transaction() as connection:
            multiply(connection, operation.id)
        clock.turn(86400.0)
        if not database.is_sqlite:
            with database.transaction() as connection:
                connection.exec_driver_sql("ANALYZE")
        yield ledger


def multiply(connection: sa.Connection, operation: str) -> None:
    """Add copies of the commands of an operation, which are completed, each time as another operation."""
    templates = connection.execute(COMMANDS.select().where(COMMANDS.c.operation_id == operation)).mappings().all()
    (of_all,) = connection.execute(OPERATIONS.select()).mappings().all()
    connection.execute(AGENTS.update().values(next_number=ENDED_PER_AGENT + 2))
    for number in range(2, ENDED_PER_AGENT + 2):
        time = of_all["created_at"] + number
        connection.execute(OPERATIONS.insert(), {**of_all, "id": f"operation-{number}", "created_at": time})
        copies = [
            {
                **row,
                "id": f"{row['agent']}-{number}",
                "number": number,
                "created_at": time,
                "completed_at": time + 1,
                "operation_id": f"operation-{number}" if number % 2 else None,
            }
            for row in templates
        ]
        connection.execute(COMMANDS.insert(), copies)
    stray = [
        {"agent": f"old-{number // 100}", "command_id": f"stray-{number}", "digest": "d", "body": "{}"}
        for number in range(5000)
    ]
    connection.execute(STRAY_RESULTS.insert(), [{**it, "received_at": time - n / 100} for n, it in enumerate(stray)])
    kept = {"epoch": 1, "completed_at": 1.0, "sha256": "s"}
    pruned = [{"id": f"pruned-{n}", "agent": f"old-{n // 100}", "number": n, **kept} for n in range(5000)]
    connection.execute(PRUNED_COMMANDS.insert(), pruned)


def status(
    agent: str, incarnation: str = "i", generation: str = "g", last: int = 0, epoch: int | None = None
) -> Status:
    return Status(agent, True, "1", incarnation, "b", generation, last_sequence=last, epoch=epoch)


@contextmanager
def counted_rows(database: Database) -> Iterator[dict[str, float]]:
    """Yield how many rows each statement in the block has read at most, once it is over."""
    rows: dict[str, float] = defaultdict(float)
    with (rows_in_sqlite if database.is_sqlite else rows_in_postgresql)(database._engine, rows):
        yield rows


@contextmanager
def rows_in_sqlite(engine: sa.Engine, rows: dict[str, float]) -> Iterator[None]:
    """Count the steps of SQLite's virtual machine, also those for rows that are fetched later."""
    running = {"statement": "", "sets": 1}

    def count() -> int:
        rows[running["statement"]] += STEPS_PER_COUNT / STEPS_PER_ROW / running["sets"]
        return 0

    def before(_c: Any, cursor: Any, statement: str, parameters: Any, _x: Any, many: bool) -> None:
        running.update(statement=f"{statement} -- {len(rows)}", sets=len(parameters) if many else 1)
        cursor.connection.set_progress_handler(count, STEPS_PER_COUNT)

    event.listen(engine, "before_cursor_execute", before)
    yield
    event.remove(engine, "before_cursor_execute", before)


@contextmanager
def rows_in_postgresql(engine: sa.Engine, rows: dict[str, float]) -> Iterator[None]:
    """Count what PostgreSQL's EXPLAIN ANALYZE of each statement says, before the statement itself is executed.

    It scans a table of this size although there is an index, so that is forbidden.
    """

    def before(_c: Any, cursor: Any, statement: str, parameters: Any, _x: Any, many: bool) -> None:
        if statement.split()[0] not in ("SELECT", "UPDATE", "DELETE", "INSERT") or "SAVEPOINT" in statement:
            return
        with cursor.connection.cursor() as own:
            own.execute("SET LOCAL enable_seqscan = off")
            if statement.startswith("SELECT") and "FOR UPDATE" not in statement:
                own.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
                (plan,) = own.fetchone()
            else:
                own.execute("SAVEPOINT explained")
                own.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters[0] if many else parameters)
                (plan,) = own.fetchone()
                own.execute("ROLLBACK TO SAVEPOINT explained")
        rows[statement] = max(rows[statement], rows_of(plan[0]["Plan"]))

    event.listen(engine, "before_cursor_execute", before)
    yield
    event.remove(engine, "before_cursor_execute", before)


def rows_of(node: Mapping[str, Any]) -> float:
    """Return how many rows the scans of a plan have read."""
    read = 0.0
    if "Scan" in node["Node Type"]:
        discarded = sum(it for name, it in node.items() if name.startswith("Rows Removed"))
        read = (node["Actual Rows"] + discarded) * node["Actual Loops"]
    return float(read) + sum(map(rows_of, node.get("Plans", ())))


def feedback(command_id: str | None, kind: FeedbackKind, **members: Any) -> Feedback:
    return replace(result(command_id or ""), command_id=command_id, kind=kind, **members)


def use_as_users_do(ledger: Any, operations: Any, groups: Any) -> None:
    """Call every method that a user's command calls."""
    agent = AGENTS_IN_LEDGER[3]
    operation = ledger.add_operation(AGENTS_IN_LEDGER, "all", REQUEST)
    for state in (None, *CommandState):
        for of_agent in (None, agent):
            for of_operation in (None, operation.id, "operation-3"):
                ledger.commands(of_agent, state, of_operation, limit=10)
    read_pages_as_users_do(ledger, operations, operation.id)
    for filters in FILTERS:
        ledger.commands(limit=10, **filters)
    for beginning in ("0", operation.id[:13], operation.id):
        ledger.ids_beginning_with(beginning)
        operations.ids_beginning_with(beginning)
        ledger.ids_beginning_with(beginning, frozenset({"edge"}))
        operations.ids_beginning_with(beginning, frozenset({"edge"}))
    for of_agent in (None, agent, "old-1"):
        ledger.page_of_unmatched(ledger.page_of_unmatched(None, 10, of_agent)[1], 10, of_agent)
    ledger.get("web-03-3")
    for call in (ledger.agents, ledger.agent_names, ledger.refused_messages):
        call()
    ledger.last_error_of(agent)
    ledger.agent(agent)
    ledger.ahead_of(ledger.commands(agent, CommandState.QUEUED, limit=1)[0])
    for name in (operation.id, "operation-3"):
        operations.get(name)
        operations.progress(name)
    operations.newest(10)
    groups.add("edge", [agent])
    groups.configure("edge", Artifact("blob:" + "0" * 64, "0" * 64, 1))
    groups.all()
    groups.sizes()
    groups.members("edge")
    groups.of([agent])
    groups.is_configured("edge")
    groups.of_agents([agent])
    groups.remove("edge", [agent])
    ledger.audits.accepted_commands(agent, 10)
    ledger.audits.look_up(["web-03-3"])
    first, second, third = (ledger.add_command(agent, REQUEST) for _ in range(3))
    ledger.request_cancel(first.id)
    ledger.abandon(second.id)
    ledger.fail(third.id, ErrorCode.INVALID, "It was refused.")
    ledger.cancel_operation(operation.id)
    ledger.abandon_operation(operation.id)
    ledger.forget(AGENTS_IN_LEDGER[5])


def read_pages_as_users_do(ledger: Any, operations: Any, operation: str) -> None:
    """Read pages with each filter, by itself and with others, from the beginning and from the middle."""
    agent, edge = AGENTS_IN_LEDGER[3], frozenset({"edge"})
    middle = ledger.now() - timedelta(days=1) + timedelta(seconds=ENDED_PER_AGENT / 2)
    for query in (
        *(CommandQuery(state=state) for state in (None, *CommandState)),
        *(CommandQuery(agent, state=state) for state in (None, *CommandState)),
        *(CommandQuery(outcome=outcome) for outcome in Outcome),
        CommandQuery(command_type="no-such-type"),
        CommandQuery(agent, command_type="no-such-type", groups=edge),
        CommandQuery(operation_id=operation),
        CommandQuery(operation_id="operation-3", command_type="no-such-type"),
        CommandQuery(since=middle, groups=edge),
        CommandQuery(until=middle, state=CommandState.COMPLETED),
        CommandQuery(agent, since=middle, until=middle),
        CommandQuery(groups=edge),
    ):
        cursor = ledger.page_of_commands(query, None, 10).cursor
        ledger.page_of_commands(query, cursor, 10)
    for groups in (None, edge):
        ledger.summary(groups)
        ledger.page_of_agents(agent, 10, "edge", groups)
        ledger.known_agent(agent, groups)
        operations.page(operations.page(None, 10, groups).cursor, 10, groups)
        operations.progress(operation, groups)
    operations.concerns(operation, edge)


def work_as_a_server_does(ledger: Any, clock: TurnedClock) -> None:
    """Call every method that the server calls, with all that agents may report."""
    ledger.requeue_all()
    for agent in AGENTS_IN_LEDGER[:5]:
        for _ in range(4):
            ledger.add_command(agent, REQUEST)
    due = ledger.due_agents(AGENTS_IN_LEDGER[0], 100)
    ledger.claim_due(100)
    ledger.claim_due(100, due)
    claimed = [(it.agent, it.command) for it in ledger.commands(limit=20)]
    for agent, command in claimed[:3]:
        record_feedback(ledger, agent, [feedback(command.id, FeedbackKind.ACCEPTED)])
        record_feedback(ledger, agent, [feedback(command.id, FeedbackKind.PROGRESS)])
        ledger.request_cancel(command.id)
        record_feedback(ledger, agent, [feedback(command.id, FeedbackKind.RESULT), result("nobody's")])
    (agent, command), (other, missing) = claimed[4], claimed[9]
    ledger.claim_due(100)
    assert missing.sequence
    record_feedback(
        ledger, other, [feedback(None, FeedbackKind.GAP, sequence=missing.sequence, expected=missing.sequence.number)]
    )
    conflict = feedback(
        command.id, FeedbackKind.RESULT, code=ErrorCode.SUPERSEDED, outcome=Outcome.ERROR, sequence=command.sequence
    )
    ledger.record_turn({agent: [conflict]})
    ledger.keep_refused(UnstoredMessage(agent, "status", None, "reason", "content", clock.now()))
    epoch = missing.sequence.epoch
    record_status(ledger, status(other, "i2", last=ENDED_PER_AGENT, epoch=epoch), status(agent, "i2", "g2"))
    record_status(ledger, status(agent, "i2", "g2"), repeated=[agent])
    clock.turn(100.0)
    ledger.requeue_overdue()
    clock.turn(700.0)
    for may_be_sent in (False, True):
        ledger.settle_expired(may_be_sent=may_be_sent)
    assert ledger.note_silence()
    ledger.events.prune()
    ledger.events.require(ledger.events.after(ledger.events.after(0).position).position)
    ledger.events.end()


def test_no_statement_reads_more_the_more_commands_have_ended(ledger: Ledger, clock: TurnedClock) -> None:
    started = clock.now() - timedelta(days=1)
    seen, operations, groups = Called(ledger), Called(ledger.operations), Called(ledger.groups)
    with counted_rows(ledger.database) as rows:
        work_as_a_server_does(seen, clock)
        use_as_users_do(seen, operations, groups)
        pruning = LedgerPruning(ledger.database, started + timedelta(seconds=4))
        assert pruning.counts() == pruning.run()
    assert [seen.not_called(), operations.not_called(), groups.not_called()] == [READ_EVERYTHING, set(), set()]
    assert len(rows) > 50
    most = {statement: MOST_ROWS_OF_PAGE if "AS matches" in statement else MOST_ROWS for statement in rows}
    assert {statement: count for statement, count in rows.items() if count > most[statement]} == {}


def test_filters_beside_an_agent_or_an_operation_read_nothing_but_their_commands(ledger: Ledger) -> None:
    with counted_rows(ledger.database) as rows:
        for filters in FILTERS:
            ledger.commands(AGENTS_IN_LEDGER[3], limit=10, **filters)
            ledger.commands(operation_id="operation-3", limit=10, **filters)
            ledger.commands(state=CommandState.QUEUED, limit=10, **filters)
    assert len(rows) > 10
    assert {statement: count for statement, count in rows.items() if count > MOST_OF_AGENT} == {}
