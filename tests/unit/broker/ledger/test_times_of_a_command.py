"""When a command was sent, stored and begun, as the ledger records it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from broker.app.factories import open_database
from broker.contract.messages import Origin, Status
from broker.contract.states import FeedbackKind
from broker.ledger.commands import LedgerRow
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status

REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(ledger_url) as database:
        yield Ledger(database, now=clock.now)


def times(row: LedgerRow, since: datetime) -> list[float | None]:
    """Return the seconds until it was sent, stored, begun and completed."""
    known = (row.sent_at, row.stored_at, row.running_at, row.completed_at)
    return [None if it is None else (it - since).total_seconds() for it in known]


def said(command_id: str, kind: FeedbackKind, **members: Any) -> Any:
    return replace(result(command_id), kind=kind, **members)


def both_notices(command_id: str) -> list[Any]:
    return [said(command_id, kind) for kind in (FeedbackKind.ACCEPTED, FeedbackKind.PROGRESS)]


def test_each_hop_is_recorded_when_it_is_learned(ledger: Ledger, clock: TurnedClock) -> None:
    command_id, start = ledger.add_command("web-01", REQUEST).id, clock.now()
    assert times(ledger.get(command_id), start) == [None] * 4
    clock.turn(1.0)
    ledger.claim_due(9)
    assert times(ledger.get(command_id), start) == [1.0, None, None, None]
    for kind in (FeedbackKind.ACCEPTED, FeedbackKind.PROGRESS, FeedbackKind.RESULT):
        clock.turn(1.0)
        record_feedback(ledger, "web-01", [said(command_id, kind)])
    assert times(ledger.get(command_id), start) == [1.0, 2.0, 3.0, 4.0]


def test_command_that_is_sent_again_keeps_the_first_time(ledger: Ledger, clock: TurnedClock) -> None:
    command_id, start = ledger.add_command("web-01", REQUEST).id, clock.now()
    for _ in range(2):
        clock.turn(1.0)
        ledger.claim_due(9)
        ledger.requeue_all()
    assert ledger.get(command_id).is_due
    assert times(ledger.get(command_id), start) == [1.0, None, None, None]


def test_progress_that_comes_first_shows_that_it_is_stored(ledger: Ledger, clock: TurnedClock) -> None:
    command_id, start = ledger.add_command("web-01", REQUEST).id, clock.now()
    ledger.claim_due(9)
    clock.turn(5.0)
    record_feedback(ledger, "web-01", both_notices(command_id))
    assert times(ledger.get(command_id), start) == [0.0, 5.0, 5.0, None]


def test_result_that_comes_first_leaves_the_times_before_it_open(ledger: Ledger, clock: TurnedClock) -> None:
    command_id, start = ledger.add_command("web-01", REQUEST).id, clock.now()
    ledger.claim_due(9)
    clock.turn(5.0)
    record_feedback(ledger, "web-01", [said(command_id, FeedbackKind.ACCEPTED), result(command_id)])
    assert times(ledger.get(command_id), start) == [0.0, None, None, 5.0]


def test_agent_that_lost_what_it_had_stored_stores_it_anew(ledger: Ledger, clock: TurnedClock) -> None:
    command, start = ledger.add_command("web-01", REQUEST), clock.now()
    assert command.sequence is not None
    status = Status("web-01", True, "1", "i", "b", "g", epoch=command.sequence.epoch, last_sequence=1)
    record_status(ledger, status)
    ledger.claim_due(9)
    record_feedback(ledger, "web-01", both_notices(command.id))
    clock.turn(3.0)
    record_status(ledger, replace(status, last_sequence=0))
    assert ledger.get(command.id).state is CommandState.SENT
    assert times(ledger.get(command.id), start) == [0.0, None, None, None]
    clock.turn(3.0)
    ledger.claim_due(9)
    record_feedback(ledger, "web-01", [said(command.id, FeedbackKind.ACCEPTED)])
    assert times(ledger.get(command.id), start) == [0.0, 6.0, None, None]
