"""Pruning and forgetting: what goes, what stays, and that a server works in between."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from broker.app.factories import open_database
from broker.contract.messages import Command, Origin, Status
from broker.contract.states import ErrorCode, Outcome
from broker.ledger.commands import UnknownCommand
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.operations import UnknownOperation
from broker.ledger.pruning import LedgerPruning
from broker.ledger.tables import AGENTS, COMMANDS, PRUNED_COMMANDS, STRAY_RESULTS, CommandState
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status
from tests.support.unmatched_results import unmatched_results

DAY = 86400.0
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(ledger_url) as database:
        yield Ledger(database, now=clock.now)


def completed(ledger: Ledger, agent: str = "web-01", **members: Any) -> Command:
    command = ledger.add_command(agent, REQUEST)
    record_feedback(ledger, agent, [replace(result(command.id), agent=agent, **members)])
    return command


def status(agent: str = "web-01", *, online: bool = True, incarnation: str = "i1") -> Status:
    return Status(agent, online, "1", incarnation, "b1", "g")


def prune(ledger: Ledger, clock: TurnedClock) -> dict[str, int]:
    """Prune what ended more than a day ago; it must be what was counted before."""
    pruning = LedgerPruning(ledger.database, clock.now() - timedelta(days=1))
    expected = dict(pruning.counts())
    done = dict(pruning.run())
    assert done == expected
    assert set(pruning.counts().values()) == {0}
    return {kind: count for kind, count in done.items() if count}


def test_what_was_completed_before_goes_and_the_rest_stays(ledger: Ledger, clock: TurnedClock) -> None:
    old = [completed(ledger) for _ in range(3)]
    still_open = ledger.add_command("web-01", REQUEST)
    clock.turn(2 * DAY)
    young = completed(ledger)
    assert prune(ledger, clock) == {"commands": 3}
    assert {row.command.id for row in ledger.commands()} == {still_open.id, young.id}
    with raises_code(UnknownCommand, "pruned_command"):
        ledger.get(old[0].id)


def test_repeated_result_of_a_pruned_command_is_acked_and_not_stored(ledger: Ledger, clock: TurnedClock) -> None:
    old = completed(ledger)
    clock.turn(2 * DAY)
    prune(ledger, clock)
    acks = record_feedback(ledger, "web-01", [result(old.id)]).acks
    assert [ack.command_id for ack in acks] == [old.id]
    assert unmatched_results(ledger) == []


def test_audits_find_what_they_need_of_pruned_commands(ledger: Ledger, clock: TurnedClock) -> None:
    one = completed(ledger)
    other = completed(ledger, outcome=Outcome.ERROR, code=ErrorCode.FAILED)
    ids = [one.id, other.id]
    known, accepted = ledger.audits.look_up(ids), ledger.audits.accepted_commands("web-01", 10)
    clock.turn(2 * DAY)
    young = completed(ledger)
    prune(ledger, clock)
    assert ledger.audits.look_up(ids) == known
    kept = ledger.audits.accepted_commands("web-01", 10)
    assert [replace(it, sha256=None) for it in kept[:2]] == accepted
    assert [it.command_id for it in ledger.audits.accepted_commands("web-01", 2)] == [other.id, young.id]


def test_operation_goes_as_a_whole_once_its_last_command_ended_before(ledger: Ledger, clock: TurnedClock) -> None:
    operation = ledger.add_operation(["web-01", "web-02"], "two", REQUEST)
    ids = {row.agent: row.command.id for row in ledger.commands(operation_id=operation.id)}
    record_feedback(ledger, "web-01", [result(ids["web-01"])])
    clock.turn(2 * DAY)
    assert prune(ledger, clock) == {}
    record_feedback(ledger, "web-02", [replace(result(ids["web-02"]), agent="web-02")])
    assert prune(ledger, clock) == {}
    assert ledger.operations.progress(operation.id).counts() == {"success": 2}
    clock.turn(2 * DAY)
    assert prune(ledger, clock) == {"commands": 2, "operations": 1}
    with pytest.raises(UnknownOperation):
        ledger.operations.get(operation.id)


def test_unmatched_result_keeps_its_digest_only(ledger: Ledger, clock: TurnedClock) -> None:
    record_feedback(ledger, "web-01", [result("unknown")])
    clock.turn(2 * DAY)
    assert prune(ledger, clock) == {"unmatched_results": 1}
    assert ledger.audits.unmatched_results("web-01") == {("unknown", "d")}
    with ledger.database.reading() as connection:
        assert connection.scalar(sa.select(STRAY_RESULTS.c.body)) == "{}"


class Interrupted:
    """A database whose writing transactions are each followed by a call."""

    def __init__(self, ledger: Ledger, between: Callable[[], object]) -> None:
        self._ledger, self._between = ledger, between
        self.reading = ledger.database.reading

    def transaction(self) -> AbstractContextManager[sa.Connection]:
        @contextmanager
        def call() -> Iterator[sa.Connection]:
            with self._ledger.database.transaction() as connection:
                yield connection
            self._between()

        return call()


def test_server_works_between_the_transactions_of_a_prune(ledger: Ledger, ledger_url: str, clock: TurnedClock) -> None:
    ledger.add_operation([f"web-{number}" for number in range(250)], "all", REQUEST)
    for row in ledger.commands():
        ledger.abandon(row.command.id)
    clock.turn(2 * DAY)
    with open_database(ledger_url) as database:
        server = Ledger(database, now=clock.now)
        interrupted: Any = Interrupted(ledger, lambda: completed(server))
        assert LedgerPruning(interrupted, clock.now()).run()["commands"] == 250
    rows = ledger.commands()
    assert len(rows) > 3
    assert {row.state for row in rows} == {CommandState.COMPLETED}


def test_vacuum_returns_the_free_pages_of_a_file(tmp_path: Path, clock: TurnedClock) -> None:
    file = tmp_path / "ledger.db"
    with open_database(f"sqlite:///{file}") as database:
        ledger = Ledger(database, now=clock.now)
        for _ in range(40):
            completed(ledger, message="x" * 50_000)
        clock.turn(2 * DAY)
        prune(ledger, clock)
        database.vacuum()
        assert database.free_bytes() == 0
        size = file.stat().st_size
        assert size < 1_000_000


def test_forgotten_agent_is_neither_listed_nor_addressed(ledger: Ledger) -> None:
    record_status(ledger, status())
    ledger.groups.add("edge", ["web-01", "web-02"])
    command = ledger.add_command("web-01", REQUEST)
    ledger.add_command("web-02", REQUEST)
    assert ledger.forget("web-01") == 1
    assert [row.name for row in ledger.agents()] == ledger.agent_names() == ["web-02"]
    assert ledger.groups.members("edge") == ["web-02"]
    row = ledger.get(command.id)
    assert (row.state, (row.result or {})["code"]) == (CommandState.COMPLETED, "interrupted")


def test_last_status_that_the_broker_keeps_brings_no_forgotten_agent_back(ledger: Ledger) -> None:
    record_status(ledger, status())
    ledger.forget("web-01")
    record_status(ledger, status(online=False), repeated=["web-01"])
    record_status(ledger, status(), repeated=["web-01"])
    assert ledger.agent_names() == []
    record_status(ledger, status(incarnation="i2"))
    assert ledger.agent_names() == ["web-01"]


@pytest.mark.parametrize(
    "send",
    [
        lambda ledger: ledger.add_command("web-01", REQUEST),
        lambda ledger: ledger.add_operation(["web-01"], "web-01", REQUEST),
    ],
)
def test_agent_that_is_sent_a_command_is_not_forgotten_any_more(ledger: Ledger, send: Callable[[Ledger], Any]) -> None:
    ledger.add_command("web-01", REQUEST)
    ledger.forget("web-01")
    send(ledger)
    assert ledger.agent_names() == ["web-01"]
    numbers = {row.command.sequence.number for row in ledger.commands("web-01") if row.command.sequence}
    assert numbers == {1, 2}


def test_forgotten_agent_is_pruned_with_everything_of_it(ledger: Ledger, clock: TurnedClock) -> None:
    completed(ledger)
    record_feedback(ledger, "web-01", [result("unknown")])
    ledger.forget("web-01")
    clock.turn(2 * DAY)
    assert prune(ledger, clock) == {"commands": 1, "unmatched_results": 1, "agents": 1}
    with ledger.database.reading() as connection:
        for table in (AGENTS, COMMANDS, PRUNED_COMMANDS, STRAY_RESULTS):
            assert connection.execute(table.select()).all() == []


def test_forgotten_agent_with_a_young_command_stays_beside_an_old_operation(ledger: Ledger, clock: TurnedClock) -> None:
    ledger.abandon_operation(ledger.add_operation(["web-02"], "one", REQUEST).id)
    command = ledger.add_command("web-01", REQUEST)
    ledger.forget("web-01")
    clock.turn(2 * DAY)
    record_feedback(ledger, "web-01", [result(command.id)])
    assert prune(ledger, clock) == {"commands": 1, "operations": 1}


def test_command_without_a_time_of_completion_goes_by_its_creation(ledger: Ledger, clock: TurnedClock) -> None:
    completed(ledger)
    with ledger.database.transaction() as connection:
        connection.execute(COMMANDS.update().values(completed_at=None))
    assert LedgerPruning(ledger.database, clock.now() + timedelta(days=2)).run()["commands"] == 1


def test_forgotten_agent_with_a_command_of_an_open_operation_stays_until_that_is_pruned(
    ledger: Ledger, clock: TurnedClock
) -> None:
    operation = ledger.add_operation(["web-01", "web-02"], "two", REQUEST)
    ledger.forget("web-01")
    clock.turn(2 * DAY)
    assert prune(ledger, clock) == {}
    ledger.abandon_operation(operation.id)
    clock.turn(2 * DAY)
    assert prune(ledger, clock) == {"commands": 2, "operations": 1, "agents": 1}


def test_last_status_that_the_broker_keeps_brings_no_pruned_agent_back(ledger: Ledger, clock: TurnedClock) -> None:
    record_status(ledger, status())
    ledger.forget("web-01")
    clock.turn(2 * DAY)
    prune(ledger, clock)
    record_status(ledger, status(online=False), status("web-02"), repeated=["web-01"])
    assert ledger.agent_names() == ["web-02"]
    record_status(ledger, status(incarnation="i2"))
    assert ledger.agent_names() == ["web-01", "web-02"]


def test_result_of_a_pruned_agent_is_acked_and_kept_as_unmatched(ledger: Ledger, clock: TurnedClock) -> None:
    command = completed(ledger)
    ledger.forget("web-01")
    clock.turn(2 * DAY)
    prune(ledger, clock)
    acks = record_feedback(ledger, "web-01", [result(command.id)]).acks
    assert [ack.command_id for ack in acks] == [command.id]
    assert len(unmatched_results(ledger)) == 1
    with ledger.database.reading() as connection:
        assert connection.scalar(sa.select(PRUNED_COMMANDS.c.id)) is None
