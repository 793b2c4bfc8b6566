"""Several processes on one ledger at once: none fails because of another."""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from broker.app.factories import open_database
from broker.contract.messages import Feedback, Origin, Status
from broker.contract.states import FeedbackKind
from broker.ledger.database import Database
from broker.ledger.enqueue import CommandRequest
from broker.ledger.failures import TransactionConflict, retry_conflicts
from broker.ledger.ledger import Ledger
from broker.ledger.tables import AGENTS, CommandState
from tests.support.fakes.clock import TurnedClock
from tests.support.postgresql import PostgreSQL
from tests.support.recorded import record_feedback, record_status

ROOT = Path(__file__).parents[4]
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


def at_once(*tasks: Callable[[], Any]) -> None:
    """Run the tasks in threads that begin together; raise the first error."""
    barrier, errors = Barrier(len(tasks)), []

    def run(task: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def opened(url: str) -> Iterator[Ledger]:
    with open_database(url) as database:
        yield Ledger(database, now=TurnedClock().now)


@pytest.fixture(params=["sqlite", "postgresql"])
def missing_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    instance: PostgreSQL = request.getfixturevalue("postgresql")
    return instance.new_database()


def test_new_ledger_may_be_opened_by_several_at_once(missing_ledger: str) -> None:
    at_once(*(lambda: open_database(missing_ledger).close() for _ in range(6)))
    with opened(missing_ledger) as ledger:
        assert ledger.agents() == []


def test_several_senders_may_send_to_the_same_new_agents(ledger_url: str) -> None:
    agents = [f"web-{number:02d}" for number in range(20)]

    def send() -> None:
        with opened(ledger_url) as ledger:
            for agent in agents:
                ledger.add_command(agent, REQUEST)

    def send_to_all(order: int) -> None:
        with opened(ledger_url) as ledger:
            ledger.add_operation(agents[::order], "all", REQUEST)
            ledger.groups.add("edge", agents[::order])

    at_once(send, send, lambda: send_to_all(1), lambda: send_to_all(-1))
    with opened(ledger_url) as ledger:
        for agent in agents:
            numbers = sorted(row.command.sequence.number for row in ledger.commands(agent) if row.command.sequence)
            assert numbers == [1, 2, 3, 4]


def test_operation_is_cancelled_beside_a_server_that_works(ledger_url: str) -> None:
    with opened(ledger_url) as ledger:
        agents = [f"web-{number:02d}" for number in range(25)]
        operation = ledger.add_operation(agents, "all", REQUEST)
        for agent in agents:
            record_status(ledger, Status(agent, True, "1", "i", "b", "g"))
        ids = [(row.agent, row.command.id) for row in ledger.commands(operation_id=operation.id, limit=None)]
    done = Event()

    def serve() -> None:
        with opened(ledger_url) as ledger:
            while not done.is_set():
                ledger.requeue_overdue()
                ledger.claim_due(500)
                ledger.requeue_all()

    def accept() -> None:
        try:
            with opened(ledger_url) as ledger:
                for agent, command_id in ids:
                    feedback = Feedback(FeedbackKind.ACCEPTED, agent, "g", "i", "pending", "m", command_id=command_id)
                    record_feedback(ledger, agent, [feedback])
        finally:
            done.set()

    def cancel() -> None:
        with opened(ledger_url) as ledger:
            while not done.is_set():
                ledger.cancel_operation(operation.id)

    at_once(serve, accept, cancel, cancel)
    with opened(ledger_url) as ledger:
        rows = ledger.commands(operation_id=operation.id, limit=None)
        assert all(row.cancel_requested or row.state is CommandState.COMPLETED for row in rows)


class Crossing:
    """Locks two agents in one transaction, in its own order; the other's first attempt locks them the other way."""

    def __init__(self, database: Database, names: list[str], met: Barrier) -> None:
        self._transaction = database.transaction
        self._names, self._met = names, met
        self.attempts = 0

    @retry_conflicts
    def lock(self) -> None:
        self.attempts += 1
        with self._transaction() as connection:
            for name in self._names:
                connection.execute(AGENTS.update().where(AGENTS.c.name == name).values(attempts=1))
                if self.attempts == 1 and name == self._names[0]:
                    self._met.wait(10)


def test_transaction_that_a_deadlock_ended_is_tried_again(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    with opened(url) as ledger:
        for agent in ("web-01", "web-02"):
            ledger.add_command(agent, REQUEST)
        met = Barrier(2)
        one = Crossing(ledger.database, ["web-01", "web-02"], met)
        other = Crossing(ledger.database, ["web-02", "web-01"], met)
        at_once(one.lock, other.lock)
    assert sorted([one.attempts, other.attempts]) == [1, 2]


def test_conflict_that_does_not_end_is_an_error_after_some_attempts(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    with opened(url) as ledger:
        ledger.add_command("web-01", REQUEST)
        attempts = []

        @retry_conflicts
        def insert_twice() -> None:
            attempts.append(1)
            with ledger.database.transaction() as connection:
                row = connection.execute(AGENTS.select()).mappings().one()
                connection.execute(AGENTS.insert().values(**row))

        with pytest.raises(TransactionConflict):
            insert_twice()
    assert len(attempts) == 6


def test_every_method_that_writes_is_tried_again_after_a_conflict() -> None:
    missing = []
    for path in sorted((ROOT / "broker").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and _opens_a_transaction(function):
                decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
                if "retry_conflicts" not in decorators:
                    missing.append(f"{path.relative_to(ROOT)}: {function.name}")
    assert missing == []


def _opens_a_transaction(function: ast.FunctionDef) -> bool:
    blocks = [node for node in ast.walk(function) if isinstance(node, ast.With)]
    opened = [ast.unparse(item.context_expr) for block in blocks for item in block.items]
    return any(text.endswith("transaction()") for text in opened)


def test_reading_sees_one_snapshot(ledger_url: str) -> None:
    with opened(ledger_url) as ledger, ledger.database.reading() as connection:
        count = sa.select(sa.func.count()).select_from(AGENTS)
        before = connection.scalar(count)
        at_once(lambda: ledger.add_command("web-01", REQUEST))
        assert (before, connection.scalar(count)) == (0, 0)
