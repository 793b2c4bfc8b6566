"""Operations, groups and targets."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.app.factories import open_database
from broker.contract.artifacts import Artifact
from broker.contract.codec import DecodeError, encode
from broker.contract.messages import Feedback, JsonObject, Origin, Status
from broker.contract.states import ErrorCode, Outcome
from broker.contract.topics import InvalidName
from broker.errors import LedgerError
from broker.ledger.blob_errors import BlobError
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Progress, UnknownOperation
from broker.ledger.tables import COMMANDS, CommandState
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status

ME = Origin("me", "test")


@pytest.fixture
def ledger(clock: TurnedClock, ledger_url: str) -> Iterator[Ledger]:
    ledger = Ledger(open_database(ledger_url), now=clock.now)
    for agent in ("db-01", "web-01", "web-02"):
        ledger.add_command(agent, CommandRequest("start-agent", {}, ME))
    yield ledger
    ledger.database.close()


def test_operation_gives_each_agent_a_command_with_its_next_number(ledger: Ledger) -> None:
    operation = ledger.add_operation(["web-01", "db-01"], "two", CommandRequest("restart-agent", {}, ME, timeout_s=5.0))
    rows = ledger.commands(operation_id=operation.id)
    assert {(row.agent, row.command.sequence and row.command.sequence.number) for row in rows} == {
        ("web-01", 2),
        ("db-01", 2),
    }
    assert {row.command.timeout_s for row in rows} == {5.0}
    assert (operation.size, operation.target) == (2, "two")
    assert ledger.operations.get(operation.id) == operation
    assert ledger.operations.newest(9) == [operation]


def test_operation_for_more_agents_than_one_transaction_is_complete(ledger: Ledger) -> None:
    agents = [f"edge-{number:04d}" for number in range(2500)]
    operation = ledger.add_operation(agents, "edge-*", CommandRequest("restart-agent", {}, ME))
    assert {row.agent for row in ledger.commands(operation_id=operation.id, limit=None)} == set(agents)
    assert ledger.operations.progress(operation.id) == Progress({CommandState.QUEUED: 2500})


def test_agent_named_twice_gets_one_command(ledger: Ledger) -> None:
    operation = ledger.add_operation(["web-01", "db-01", "web-01"], "two", CommandRequest("restart-agent", {}, ME))
    assert (operation.size, len(ledger.commands(operation_id=operation.id))) == (2, 2)
    after = ledger.add_command("web-01", CommandRequest("stop-agent", {}, ME))
    assert after.sequence
    assert after.sequence.number == 3


def test_invalid_operation_writes_nothing(ledger: Ledger) -> None:
    with pytest.raises(DecodeError):
        ledger.add_operation(["web-01"], "web-01", CommandRequest("x" * 200, {}, ME))
    with pytest.raises(InvalidName):
        ledger.add_operation(["web-01", "No Name"], "two", CommandRequest("restart-agent", {}, ME))
    assert ledger.operations.newest(9) == []
    assert len(ledger.commands()) == 3


def test_progress_counts_commands_by_state_and_outcome(ledger: Ledger) -> None:
    operation = ledger.add_operation(["db-01", "web-01", "web-02"], "three", CommandRequest("restart-agent", {}, ME))
    by_agent = {row.agent: row.command.id for row in ledger.commands(operation_id=operation.id)}
    record_feedback(ledger, "db-01", [result(by_agent["db-01"])])
    bad = replace(result(by_agent["web-01"]), outcome=Outcome.ERROR, code=ErrorCode.FAILED)
    record_feedback(ledger, "web-01", [bad])
    progress = ledger.operations.progress(operation.id)
    assert progress == Progress({CommandState.QUEUED: 1}, succeeded=1, failed=1)
    assert (progress.done, progress.completed) == (False, 2)
    assert progress.counts() == {"queued": 1, "success": 1, "error": 1}


def test_progress_counts_results_written_by_an_earlier_version(ledger: Ledger) -> None:
    operation = ledger.add_operation(["web-01", "web-02"], "two", CommandRequest("restart-agent", {}, ME))
    for row in ledger.commands(operation_id=operation.id):
        outcome = Outcome.SUCCESS if row.agent == "web-01" else Outcome.ERROR
        written = replace(result(row.command.id), outcome=outcome)
        record_feedback(ledger, row.agent, [written])
        with ledger.database.transaction() as connection:
            of_earlier_version = COMMANDS.update().where(COMMANDS.c.id == row.command.id)
            connection.execute(of_earlier_version.values(outcome=None, result=encode([written]).decode()))
    assert ledger.operations.progress(operation.id) == Progress(succeeded=1, failed=1)


def test_partly_written_operation_states_how_many_were_written(clock: TurnedClock, tmp_path: Path) -> None:
    ledger = Ledger(open_database(f"sqlite:///{tmp_path}/ledger.db"), now=clock.now)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON commands WHEN (SELECT count(*) FROM commands) >= 1000 "
            "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    with raises_code(LedgerError, "partly_written") as failed:
        ledger.add_operation(
            [f"edge-{number}" for number in range(1001)], "edge-*", CommandRequest("restart-agent", {}, ME)
        )
    (operation,) = ledger.operations.newest(9)
    assert [part in str(failed.value) for part in ("the disk is full", "1000 of 1001", operation.id)] == [True] * 3
    assert ledger.operations.progress(operation.id).counts() == {"queued": 1000, "unwritten": 1}
    with raises_code(LedgerError, "refused_by_database"):
        ledger.add_operation(["web-01"], "web-01", CommandRequest("restart-agent", {}, ME))
    assert ledger.operations.newest(9) == [operation]
    ledger.database.close()


def test_cancelling_an_operation_cancels_its_open_commands(ledger: Ledger) -> None:
    operation = ledger.add_operation(["db-01", "web-01"], "two", CommandRequest("restart-agent", {}, ME))
    done = next(row for row in ledger.commands(operation_id=operation.id) if row.agent == "db-01")
    record_feedback(ledger, "db-01", [result(done.command.id)])
    ledger.claim_due(9)
    assert ledger.cancel_operation(operation.id) == 1
    cancelled = [row.agent for row in ledger.commands(operation_id=operation.id) if row.cancel_requested]
    assert cancelled == ["web-01"]


def test_abandoning_an_operation_completes_its_open_commands(ledger: Ledger) -> None:
    operation = ledger.add_operation(["db-01", "web-01"], "two", CommandRequest("restart-agent", {}, ME))
    done = next(row for row in ledger.commands(operation_id=operation.id) if row.agent == "db-01")
    record_feedback(ledger, "db-01", [result(done.command.id)])
    assert ledger.abandon_operation(operation.id) == 1
    assert ledger.operations.progress(operation.id).counts() == {"success": 1, "error": 1}
    ours = {row.command.id for row in ledger.commands(operation_id=operation.id)}
    assert ours.isdisjoint(command.id for _, command in ledger.claim_due(9).commands)


def test_cancels_are_claimed_in_bounded_numbers(ledger: Ledger) -> None:
    operation = ledger.add_operation(["db-01", "web-01", "web-02"], "three", CommandRequest("restart-agent", {}, ME))
    ledger.claim_due(9)
    ledger.cancel_operation(operation.id)
    taken = [ledger.claim_due(2).cancels for _ in range(3)]
    assert [len(cancels) for cancels in taken] == [2, 1, 0]
    assert {agent for cancels in taken for agent, _ in cancels} == {"db-01", "web-01", "web-02"}


@pytest.mark.parametrize("call", ["get", "progress"])
def test_unknown_operation_is_an_error(ledger: Ledger, call: str) -> None:
    with raises_code(UnknownOperation, "unknown_operation"):
        getattr(ledger.operations, call)("nothing")
    with pytest.raises(UnknownOperation):
        ledger.cancel_operation("nothing")


def test_groups_are_listed_with_their_members(ledger: Ledger) -> None:
    ledger.groups.add("edge", ["web-02", "web-01", "web-01"])
    ledger.groups.add("all", ["web-01"])
    assert ledger.groups.all() == {"all": ["web-01"], "edge": ["web-01", "web-02"]}
    ledger.groups.remove("edge", ["web-01", "unknown"])
    assert ledger.groups.members("edge") == ["web-02"]
    assert ledger.groups.members("nothing") == []
    with raises_code(InvalidName, "invalid_name") as caught:
        ledger.groups.add("Edge", ["web-01"])
    assert "'Edge'" in str(caught.value)


def test_groups_in_a_status_replace_the_servers_list_once(ledger: Ledger) -> None:
    status = Status("web-01", True, "1", "i1", "b1", "g1", groups=("edge", "No Group"))
    ledger.groups.add("old", ["web-01"])
    record_status(ledger, replace(status, groups=None))
    assert ledger.groups.all() == {"old": ["web-01"]}
    record_status(ledger, status)
    assert ledger.groups.all() == {"edge": ["web-01"]}
    ledger.groups.add("new", ["web-01"])
    record_status(ledger, status)
    assert ledger.groups.all() == {"edge": ["web-01"], "new": ["web-01"]}
    record_status(ledger, replace(status, groups=()))
    assert ledger.groups.all() == {}


def test_last_will_does_not_change_groups(ledger: Ledger) -> None:
    status = Status("web-01", True, "1", "i1", "b1", "g1", groups=("b",))
    record_status(ledger, status)
    ledger.groups.add("extra", ["web-01"])
    for will in (("a",), None):
        record_status(ledger, replace(status, online=False, groups=will))
        record_status(ledger, status)
    assert ledger.groups.all() == {"b": ["web-01"], "extra": ["web-01"]}


@pytest.fixture
def configuration(ledger: Ledger, tmp_path: Path) -> Artifact:
    file = tmp_path / "sensor.toml"
    file.write_text("rate = 1\n")
    return ledger.blobs.put(file)


def asking(name: str, **members: Any) -> Feedback:
    return replace(result(name), data={"asks_for": "group-configuration"}, **members)


def sent_configurations(ledger: Ledger) -> list[tuple[str, JsonObject]]:
    rows = ledger.commands()
    return [(row.agent, row.command.parameters) for row in rows if row.command.type.startswith("apply")]


def fetch(ledger: Ledger, command_type: str = "fetch-config", digest: str = "d") -> None:
    """Send a command, and complete it with a result that requests the group's configuration."""
    sent = ledger.add_command("web-01", CommandRequest(command_type, {}, Origin("me", "test")))
    record_feedback(ledger, "web-01", [asking(sent.id, digest=digest)] * 2)


def test_fetch_config_sends_the_configuration_of_the_group_once(ledger: Ledger, configuration: Artifact) -> None:
    ledger.groups.add("edge", ["web-01"])
    ledger.groups.configure("edge", configuration)
    fetch(ledger)
    expected = {"artifact": msgspec.to_builtins(configuration), "group": "edge"}
    assert sent_configurations(ledger) == [("web-01", expected)]
    fetch(ledger)
    assert len(sent_configurations(ledger)) == 1, "the one on its way answers both"


def test_applied_configuration_can_be_fetched_again_after_a_minute(
    ledger: Ledger, configuration: Artifact, clock: TurnedClock
) -> None:
    ledger.groups.add("edge", ["web-01"])
    ledger.groups.configure("edge", configuration)
    fetch(ledger)
    (sent,) = [row for row in ledger.commands() if row.command.type.startswith("apply")]
    record_feedback(ledger, "web-01", [result(sent.command.id)])
    fetch(ledger)
    assert len(sent_configurations(ledger)) == 1
    clock.turn(61.0)
    fetch(ledger)
    assert len(sent_configurations(ledger)) == 2


def test_only_the_result_of_an_open_fetch_config_is_answered(ledger: Ledger, configuration: Artifact) -> None:
    """Otherwise an agent could make the server write commands without end, by unrequested results."""
    ledger.groups.add("edge", ["web-01"])
    ledger.groups.configure("edge", configuration)
    record_feedback(ledger, "web-01", [asking("invented"), asking("invented", digest="d2")])
    fetch(ledger, "restart-agent")
    assert sent_configurations(ledger) == []
    fetch(ledger)
    (answer,) = [row.command for row in ledger.commands() if row.command.type.startswith("apply")]
    record_feedback(ledger, "web-01", [asking(answer.id)])
    assert len(sent_configurations(ledger)) == 1


def test_fetch_config_without_a_configured_group_sends_nothing(ledger: Ledger, configuration: Artifact) -> None:
    ledger.groups.configure("edge", configuration)
    ledger.groups.add("other", ["web-01"])
    fetch(ledger)
    assert sent_configurations(ledger) == []


def test_blob_that_is_a_group_configuration_is_not_removed(ledger: Ledger, configuration: Artifact) -> None:
    ledger.groups.configure("edge", configuration)
    with raises_code(BlobError, "in_use"):
        ledger.blobs.remove(configuration.sha256)
