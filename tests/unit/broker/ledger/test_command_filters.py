"""Which commands the filters of `acm commands` find, and ids by their beginnings."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from broker.app.factories import open_database
from broker.contract.messages import Origin
from broker.contract.states import ErrorCode, Outcome
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback

START = TurnedClock().now()


def at(seconds: float) -> Any:
    clock = TurnedClock()
    clock.turn(seconds)
    return clock.now()


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    """A ledger with four commands, one every 60 seconds, of which the first two have ended."""
    with open_database(ledger_url) as database:
        ledger = Ledger(database, now=clock.now)
        for agent, command_type in (("a", "restart-agent"), ("b", "restart-agent"), ("a", "set-group"), ("b", "x")):
            ledger.add_command(agent, CommandRequest(command_type, {}, Origin("me", "test")))
            clock.turn(60.0)
        *_, second, first = ledger.commands()
        ledger.claim_due(9)
        record_feedback(ledger, "a", [replace(result(first.command.id), agent="a")])
        failed = replace(result(second.command.id), agent="b", outcome=Outcome.ERROR, code=ErrorCode.FAILED)
        record_feedback(ledger, "b", [failed])
        yield ledger


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "4321"),
        ({"command_type": "restart-agent"}, "21"),
        ({"command_type": "restart-agent", "agent": "b"}, "2"),
        ({"outcome": Outcome.ERROR}, "2"),
        ({"outcome": Outcome.SUCCESS}, "1"),
        ({"outcome": Outcome.ERROR, "agent": "a"}, ""),
        ({"outcome": Outcome.ERROR, "command_type": "restart-agent"}, "2"),
        ({"since": at(60)}, "432"),
        ({"until": at(60)}, "1"),
        ({"since": at(60), "until": at(180)}, "32"),
        ({"agent": "a", "since": at(60)}, "3"),
        ({"state": CommandState.SENT, "command_type": "x"}, "4"),
        ({"state": CommandState.COMPLETED, "outcome": Outcome.SUCCESS}, "1"),
    ],
    ids=str,
)
def test_each_filter_is_a_condition(ledger: Ledger, filters: dict[str, Any], found: str) -> None:
    numbers = {row.command.id: str(4 - place) for place, row in enumerate(ledger.commands())}
    assert "".join(numbers[row.command.id] for row in ledger.commands(**filters)) == found


def test_ids_are_found_by_their_beginnings(ledger: Ledger) -> None:
    ids = [row.command.id for row in ledger.commands()]
    for known in ids:
        assert ledger.ids_beginning_with(known) == [known]
        assert ledger.ids_beginning_with(known.upper().replace("-", "")) == [known]
        assert known in ledger.ids_beginning_with(known[:34])
    assert len(ledger.ids_beginning_with(ids[0][0])) == 3, "more than one is enough to know"
    assert ledger.ids_beginning_with("ffff") == []
    for nothing in ("", "x", "-", "%", f"{ids[0]}0"):
        assert ledger.ids_beginning_with(nothing) == []


def test_operations_are_found_by_their_beginnings(ledger: Ledger) -> None:
    request = CommandRequest("restart-agent", {}, Origin("me", "test"))
    first, second = (ledger.add_operation(["a", "b"], "all", request).id for _ in range(2))
    assert ledger.operations.ids_beginning_with(first[:30]) in ([first], [first, second])
    assert ledger.operations.ids_beginning_with(second) == [second]
