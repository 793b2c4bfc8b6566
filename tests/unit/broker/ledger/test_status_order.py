"""Old statuses, last wills and feedback change nothing, however the broker delivers them."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.app.factories import open_database
from broker.contract.limits import MAX_NUMBER
from broker.contract.messages import Command, Feedback, Origin, Status
from broker.contract.states import ErrorCode, FeedbackKind, Outcome
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from tests.support.fakes.clock import TurnedClock
from tests.support.unmatched_results import unmatched_results

FIRST = Status("web-01", True, "1", "i1", "b1", "g1", order=(1, 1, 1), groups=("new",))


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    opened = Ledger(open_database(ledger_url), now=clock.now)
    yield opened
    opened.database.close()


def will_of(status: Status) -> Status:
    start, attempt, _ = status.order or (0, 0, 0)
    return replace(status, online=False, order=(start, attempt, MAX_NUMBER))


def send(ledger: Ledger) -> Command:
    sent = ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    ledger.claim_due(100)
    return sent


def feedback(kind: FeedbackKind, command: Command, incarnation: str = "i1") -> Feedback:
    return Feedback(kind, "web-01", "g1", incarnation, "pending", "So it is.", command_id=command.id)


def result(command: Command, outcome: Outcome = Outcome.SUCCESS, code: ErrorCode | None = None) -> Feedback:
    said = feedback(FeedbackKind.RESULT, command)
    return replace(said, status="completed", outcome=outcome, code=code, digest=f"d-{outcome}")


def known(ledger: Ledger) -> Status:
    status = ledger.agents()[0].status
    assert status is not None
    return status


@pytest.mark.parametrize("repeated", [(), ("web-01",)])
@pytest.mark.parametrize(
    "old",
    [
        replace(FIRST, order=(1, 1, 0), groups=("old",)),
        will_of(FIRST),
        replace(FIRST, incarnation="i0", order=(0, 9, 9), groups=("old",), enrolment_id="e0"),
    ],
)
def test_older_status_of_the_same_store_changes_nothing(ledger: Ledger, old: Status, repeated: tuple[str, ...]) -> None:
    now = replace(FIRST, order=(1, 2, 1))
    ledger.record_status(FIRST, now)
    assert ledger.record_status(old, repeated=repeated).new == []
    assert known(ledger) == now
    assert ledger.groups.members("new") == ["web-01"]


def test_restart_reconnection_and_the_last_will_of_each_are_in_order(ledger: Ledger) -> None:
    again = replace(FIRST, order=(1, 2, 2))
    restarted = replace(FIRST, incarnation="i2", order=(2, 1, 1))
    for status in (FIRST, will_of(FIRST), again, restarted, will_of(restarted)):
        assert ledger.record_status(status).new == [status]
    assert known(ledger).online is False


def test_status_that_an_agent_leaves_when_it_stops_is_not_out_of_date(ledger: Ledger, clock: TurnedClock) -> None:
    """The last status before it may have been overtaken in the server's queue."""
    ledger.record_status(replace(FIRST, groups=None))
    left = replace(FIRST, online=False, order=(1, 1, 2), updated_at=clock.now())
    ledger.record_status(left)
    assert known(ledger) == left
    assert ledger.groups.members("new") == ["web-01"]


def test_another_store_is_believed_only_once_its_agent_answers(ledger: Ledger) -> None:
    """A retained status from before the agent lost its store looks like that of a new store."""
    ledger.record_status(FIRST)
    running = send(ledger)
    ledger.record_feedback("web-01", [feedback(FeedbackKind.PROGRESS, running)])
    stale = replace(FIRST, store_generation="g0", incarnation="i0", order=(7, 7, 7))
    first, second = (ledger.record_status(stale, repeated=["web-01"]).requests for _ in range(2))
    assert first == second
    assert [agent for agent, _ in first] == ["web-01"]
    assert ledger.get(running.id).state is CommandState.RUNNING
    (_, request) = first[0]
    assert ledger.record_status(replace(stale, answers="another")).new == []
    assert ledger.record_status(replace(stale, answers=request)).requests == []
    result = ledger.get(running.id).result or {}
    assert "lost its command store" in result["message"]


def test_answered_request_proves_nothing_a_second_time(ledger: Ledger) -> None:
    ledger.record_status(FIRST)
    moved = replace(FIRST, store_generation="g2", order=(1, 1, 1))
    ((_, request),) = ledger.record_status(moved).requests
    answer = replace(moved, order=(1, 1, 2), answers=request)
    assert ledger.record_status(answer).new == [answer]
    ((_, another),) = ledger.record_status(replace(FIRST, order=(9, 9, 9), answers=request)).requests
    assert another != request
    assert known(ledger) == answer


def test_store_that_went_back_is_believed_once_its_agent_answers(ledger: Ledger) -> None:
    ledger.record_status(replace(FIRST, order=(5, 1, 1), epoch=1, last_sequence=9))
    back = replace(FIRST, incarnation="i9", order=(3, 1, 1))
    ((_, request),) = ledger.record_status(back).requests
    answer = replace(back, order=(3, 1, 2), answers=request)
    assert ledger.record_status(answer).new == [answer]


def test_last_will_of_another_store_asks_nobody(ledger: Ledger) -> None:
    ledger.record_status(FIRST)
    recorded = ledger.record_status(will_of(replace(FIRST, store_generation="g0")))
    assert (recorded.new, recorded.requests) == ([], [])
    assert known(ledger).online


def test_agent_is_seen_when_it_spoke(ledger: Ledger, clock: TurnedClock) -> None:
    spoke = clock.now()
    clock.turn(400.0)
    copy = replace(FIRST, updated_at=spoke - timedelta(seconds=60), clock_behind_s=60)
    ledger.record_status(copy, repeated=["web-01"])
    assert ledger.agents()[0].seen_at == spoke
    ahead = replace(copy, order=(1, 1, 2), updated_at=clock.now() + timedelta(days=1))
    ledger.record_status(ahead, repeated=["web-01"])
    assert ledger.agents()[0].seen_at == clock.now()


def test_copies_of_statuses_without_an_order_are_told_apart_by_their_time(ledger: Ledger, clock: TurnedClock) -> None:
    """Earlier versions of the agent send them, and cannot be asked."""
    first = replace(FIRST, order=None, updated_at=clock.now())
    later = replace(first, updated_at=clock.now() + timedelta(seconds=5), groups=("later",))
    older = replace(first, store_generation="g0", updated_at=clock.now() - timedelta(seconds=5))
    will = replace(older, online=False, updated_at=None)
    assert ledger.record_status(first).new == [first]
    assert ledger.record_status(later, repeated=["web-01"]).new == [later]
    for old in (first, older, will):
        recorded = ledger.record_status(old, repeated=["web-01"])
        assert (recorded.new, recorded.requests) == ([], [])
    assert ledger.record_status(older).new == [older], "it speaks now"


def test_acceptance_of_an_earlier_process_does_not_count(ledger: Ledger) -> None:
    """Delivered late, it would keep a command that a restored snapshot does not have from being sent again."""
    ledger.record_status(FIRST)
    sent = send(ledger)
    ledger.record_feedback("web-01", [feedback(FeedbackKind.ACCEPTED, sent, incarnation="i0")])
    assert ledger.get(sent.id).state is CommandState.SENT


def test_true_result_replaces_the_verdict_of_the_server(ledger: Ledger) -> None:
    ledger.record_status(FIRST)
    sent = send(ledger)
    verdict = ledger.abandon(sent.id).result
    said = result(sent)
    assert [ack.command_id for ack in ledger.record_feedback("web-01", [said]).acks] == [sent.id]
    row = ledger.get(sent.id)
    assert row.result is not None
    assert (row.result["outcome"], row.verdict) == ("success", verdict)
    assert len(ledger.record_feedback("web-01", [said]).acks) == 1
    other = result(sent, Outcome.ERROR, ErrorCode.FAILED)
    ledger.record_feedback("web-01", [other])
    assert ledger.get(sent.id) == row, "a result of the agent is never replaced"
    assert [unmatched["digest"] for unmatched in unmatched_results(ledger)] == [other.digest]


def test_refused_number_does_not_replace_the_verdict_of_the_server(ledger: Ledger) -> None:
    """It says that a late copy of the message was refused, not what had happened to the command."""
    ledger.record_status(FIRST)
    sent = send(ledger)
    row = ledger.abandon(sent.id)
    refusal = result(sent, Outcome.ERROR, ErrorCode.SUPERSEDED)
    assert len(ledger.record_feedback("web-01", [refusal]).acks) == 1
    assert ledger.get(sent.id) == row
