"""Results are stored without what their rows have, and read as they came."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.app.factories import open_database
from broker.contract.codec import encode, to_json
from broker.contract.messages import Command, Feedback, Origin, SequenceNumber
from broker.contract.states import ErrorCode, Outcome
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import COMMANDS
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, result
from tests.support.recorded import record_feedback

REQUEST = CommandRequest("restart-agent", {"delay_s": 1.5}, Origin("me", "test"), expires_in_s=60.0, timeout_s=9.0)
WITH_SECRET = CommandRequest("enroll-agent", {"server": "https://a.example", "token": "hidden"}, Origin("me", "test"))


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(ledger_url) as database:
        yield Ledger(database, now=clock.now)


def reported(command: Command, /, **members: Any) -> Feedback:
    """A result as an agent reports it, with the command as it was received."""
    echo = {"command": to_json(command), "sequence": command.sequence, "digest": "d" * 64}
    return replace(result(command.id), started_at=NOW, finished_at=NOW + timedelta(seconds=1), **{**echo, **members})


def stored(ledger: Ledger, command: Command) -> dict[str, Any]:
    with ledger.database.reading() as connection:
        return dict(connection.execute(COMMANDS.select().where(COMMANDS.c.id == command.id)).mappings().one())


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"command": None},
        {"command": {"id": "other"}},
        {"sequence": None},
        {"sequence": SequenceNumber(1, 1)},
        {"agent": "another"},
        {"status": "ended"},
        {"outcome": Outcome.ERROR, "code": ErrorCode.FAILED, "data": {"a": None}, "notes": ("a note",)},
    ],
    ids=str,
)
def test_stored_result_is_read_as_it_came(ledger: Ledger, members: dict[str, Any]) -> None:
    command = ledger.add_command("web-01", REQUEST)
    came = reported(command, **members)
    record_feedback(ledger, "web-01", [came])
    found = ledger.get(command.id).result
    assert found == to_json(came)
    assert list(found) == list(to_json(came)), "in the order of the messages"


def test_stored_result_repeats_nothing_of_its_row(ledger: Ledger) -> None:
    command = ledger.add_command("web-01", REQUEST)
    record_feedback(ledger, "web-01", [reported(command)])
    row = stored(ledger, command)
    for repeated in (command.id, "restart-agent", "d" * 64, "web-01", "success", "epoch"):
        assert repeated not in row["result"]
    assert (row["body_check"], row["digest"], row["outcome"]) == (None, "d" * 64, "success")


def test_result_of_an_earlier_version_is_read_as_it_is(ledger: Ledger) -> None:
    command = ledger.add_command("web-01", REQUEST)
    came = reported(command, command=None)
    record_feedback(ledger, "web-01", [came])
    with ledger.database.transaction() as connection:
        connection.execute(COMMANDS.update().values(result=encode([came]).decode()))
    assert ledger.get(command.id).result == to_json(came)


def test_verdict_of_the_server_is_read_as_it_was_before_the_agents_result(ledger: Ledger) -> None:
    command = ledger.add_command("web-01", REQUEST)
    ledger.claim_due(1)
    verdict = ledger.abandon(command.id).result
    assert verdict is not None
    assert [verdict[name] for name in ("digest", "outcome", "command")] == ["server", "error", to_json(command)]
    record_feedback(ledger, "web-01", [reported(command)])
    row = ledger.get(command.id)
    assert (row.verdict, row.result) == (verdict, to_json(reported(command)))


def test_secret_is_masked_in_a_stored_result_and_no_damage_of_the_row(ledger: Ledger) -> None:
    command = ledger.add_command("web-01", WITH_SECRET)
    record_feedback(ledger, "web-01", [reported(command)])
    assert "hidden" not in str(stored(ledger, command))
    row = ledger.get(command.id)
    assert row.result is not None
    assert row.result["command"]["parameters"] == row.command.parameters
    assert row.command.parameters["token"].strip("*") == ""
    assert ledger.damaged_rows() == []
