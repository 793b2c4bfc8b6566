"""Requests for a journal, page by page, to an agent that answers at once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.app.factories import open_database
from broker.audit.request import AuditError, request_audit
from broker.contract.commands.get_audit_journal import GetAuditJournal, GetAuditJournalData
from broker.contract.messages import Command, JournalMark, JsonObject, Origin, SequenceNumber, Status
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.outcomes import WaitTimeout
from broker.ledger.waiting import Wait
from consumer.engine.feedback import FeedbackFactory
from consumer.handler import Context, Result
from consumer.handlers.get_audit_journal import HANDLER
from consumer.services import NoService
from consumer.store.command_store import DiskCommandStore
from consumer.store.opening import open_store
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, command
from tests.support.recorded import record_feedback, record_status

ORIGIN = Origin("me", "test")
REPORTS = FeedbackFactory("web-01", "i1", "g1")


def answer(state: Path, first: int) -> Result:
    context = Context(TurnedClock(), NoService(), state)
    done = HANDLER.execute(command("x"), GetAuditJournal(first), context)
    assert isinstance(done, Result)
    return done


class AnsweringLedger(Ledger):
    """Completes each added command with the result that `answers` returns; None leaves it open."""

    answers: Any = None

    def add_command(self, agent: str, request: CommandRequest) -> Command:
        added = super().add_command(agent, request)
        outcome = self.answers(added)
        if outcome is not None:
            self.claim_due(9)
            record_feedback(self, "web-01", [REPORTS.result(added, outcome, NOW).feedback])
        return added


@pytest.fixture
def ledger(clock: TurnedClock) -> Iterator[AnsweringLedger]:
    opened = AnsweringLedger(open_database("sqlite://"), now=clock.now)
    record_status(opened, Status("web-01", True, "1", "i1", "b1", "g1", audit_head=JournalMark(1, "a" * 64)))
    yield opened
    opened.database.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskCommandStore]:
    opened = open_store(tmp_path, now=lambda: NOW)
    yield opened
    opened.close()


def ask(ledger: Ledger, wait_s: float = 20.0) -> GetAuditJournalData:
    return request_audit(ledger, "web-01", ORIGIN, Wait(wait_s))[0]


def test_long_journal_is_read_in_several_answers(
    ledger: AnsweringLedger, store: DiskCommandStore, tmp_path: Path
) -> None:
    for number in range(1, 40):
        with store.transaction():
            for index in range(30):
                store.store_command(command(f"{number}-{index}", (number - 1) * 30 + index + 1), NOW)
    asked: list[int] = []

    def grow_and_answer(sent: Command) -> Result:
        asked.append(sent.parameters["first"])
        store.store_command(replace(sent, sequence=SequenceNumber(8, len(asked))), NOW)
        return answer(tmp_path, sent.parameters["first"])

    ledger.answers = grow_and_answer
    journal, side = request_audit(ledger, "web-01", ORIGIN, Wait(20.0))
    assert len(asked) > 1
    assert journal.head.number == 41
    assert [line for page in journal.pages for line in page.entries][-1].count(side.requested_by) == 1
    assert sum(len(page.entries) for page in journal.pages) == 41
    assert (side.status_head, side.accepts_unsigned, len(side.known)) == (JournalMark(1, "a" * 64), False, 1)


def test_journal_answer_fits_into_one_message(store: DiskCommandStore, tmp_path: Path) -> None:
    name = '"' * 120  # the characters that grow most when JSON is encoded as a JSON string
    with store.transaction():
        for number in range(1000):
            store.store_command(command(f"{name}{number}", command_type=name), NOW)
    result = REPORTS.result(command("x"), answer(tmp_path, 1), NOW).feedback
    assert result.data is not None
    assert result.notes == ()


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"anchor": {"number": 0, "hash": "x"}, "head": {"number": 1, "hash": "0" * 64}, "pages": []},
        {"anchor": {"number": -1, "hash": "0" * 64}, "head": {"number": 1, "hash": "0" * 64}, "pages": []},
    ],
)
def test_answer_that_is_not_a_journal_is_refused(ledger: AnsweringLedger, data: JsonObject | None) -> None:
    ledger.answers = lambda sent: Result("Here.", data)
    with raises_code(AuditError, "malformed"):
        ask(ledger)


def test_endless_journal_is_refused(ledger: AnsweringLedger) -> None:
    asked: list[int] = []

    def one_more(sent: Command) -> Result:
        first = sent.parameters["first"]
        asked.append(first)
        page = {"first": first, "before": "0" * 64, "entries": ["{}"]}
        mark = {"number": 10**9, "hash": "0" * 64}
        return Result("Here.", {"anchor": {**mark, "number": 0}, "head": mark, "pages": [page]})

    ledger.answers = one_more
    with raises_code(AuditError, "endless"):
        ask(ledger)
    assert len(asked) <= 201


def test_answer_without_pages_ends_the_reading(ledger: AnsweringLedger) -> None:
    mark = {"number": 9, "hash": "0" * 64}
    ledger.answers = lambda sent: Result("Here.", {"anchor": {**mark, "number": 0}, "head": mark, "pages": []})
    assert ask(ledger).pages == ()


def test_request_to_a_silent_agent_ends_after_the_wait_time(ledger: AnsweringLedger) -> None:
    ledger.answers = lambda sent: None
    with pytest.raises(WaitTimeout):
        ask(ledger, 0.01)


def page(first: int, *entries: str) -> dict[str, Any]:
    return {"first": first, "before": "0" * 64, "entries": list(entries)}


def test_page_that_has_grown_replaces_its_shorter_form(ledger: AnsweringLedger) -> None:
    """The second answer begins with the page of the first, which was written to meanwhile, and has an older one."""
    mark = {"number": 3, "hash": "0" * 64}
    answers = iter([[page(1, "a"), page(2, "b")], [page(1, "a"), page(2, "b", "c")]])
    ledger.answers = lambda sent: Result(
        "Here.", {"anchor": {**mark, "number": 0}, "head": mark, "pages": next(answers)}
    )
    assert [it.entries for it in ask(ledger).pages] == [("a",), ("b", "c")]
