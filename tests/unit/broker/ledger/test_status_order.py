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
from tests.support.recorded import record_feedback, record_status
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
    record_status(ledger, FIRST, now)
    assert record_status(ledger, old, repeated=repeated).new == []
    assert known(ledger) == now
    assert ledger.groups.members("new") == ["web-01"]


def test_restart_reconnection_and_the_last_will_of_each_are_in_order(ledger: Ledger) -> None:
    again = replace(FIRST, order=(1, 2, 2))
    restarted = replace(FIRST, incarnation="i2", order=(2, 1, 1))
    for status in (FIRST, will_of(FIRST), again, restarted, will_of(restarted)):
        assert record_status(ledger, status).new == [status]
    assert known(ledger).online is False


def test_status_that_an_agent_leaves_when_it_stops_is_not_out_of_date(ledger: Ledger, clock: TurnedClock) -> None:
    """The last status before it may have been overtaken in the server's queue."""
    record_status(ledger, replace(FIRST, groups=None))
    left = replace(FIRST, online=False, order=(1, 1, 2), updated_at=clock.now())
    record_status(ledger, left)
    assert known(ledger) == left
    assert ledger.groups.members("new") == ["web-01"]


def test_another_store_is_believed_only_once_its_agent_answers(ledger: Ledger) -> None:
    """A retained status from before the agent lost its store looks like that of a new store."""
    record_status(ledger, FIRST)
    running = send(ledger)
    record_feedback(ledger, "web-01", [feedback(FeedbackKind.PROGRESS, running)])
    stale = replace(FIRST, store_generation="g0", incarnation="i0", order=(7, 7, 7))
    first, second = (record_status(ledger, stale, repeated=["web-01"]).requests for _ in range(2))
    assert first == second
    assert [agent for agent, _ in first] == ["web-01"]
    assert ledger.get(running.id).state is CommandState.RUNNING
    (_, request) = first[0]
    assert record_status(ledger, replace(stale, answers="another")).new == []
    assert record_status(ledger, replace(stale, answers=request)).requests == []
    result = ledger.get(running.id).result or {}
    assert "lost its command store" in result["message"]


def test_answered_request_proves_nothing_a_second_time(ledger: Ledger) -> None:
    record_status(ledger, FIRST)
    moved = replace(FIRST, store_generation="g2", order=(1, 1, 1))
    ((_, request),) = record_status(ledger, moved).requests
    answer = replace(moved, order=(1, 1, 2), answers=request)
    assert record_status(ledger, answer).new == [answer]
    ((_, another),) = record_status(ledger, replace(FIRST, order=(9, 9, 9), answers=request)).requests
    assert another != request
    assert known(ledger) == answer


def test_store_that_went_back_is_believed_once_its_agent_answers(ledger: Ledger) -> None:
    record_status(ledger, replace(FIRST, order=(5, 1, 1), epoch=1, last_sequence=9))
    back = replace(FIRST, incarnation="i9", order=(3, 1, 1))
    ((_, request),) = record_status(ledger, back).requests
    answer = replace(back, order=(3, 1, 2), answers=request)
    assert record_status(ledger, answer).new == [answer]


def test_last_will_of_another_store_asks_nobody(ledger: Ledger) -> None:
    record_status(ledger, FIRST)
    recorded = record_status(ledger, will_of(replace(FIRST, store_generation="g0")))
    assert (recorded.new, recorded.requests) == ([], [])
    assert known(ledger).online


def test_agent_is_seen_when_it_spoke(ledger: Ledger, clock: TurnedClock) -> None:
    spoke = clock.now()
    clock.turn(400.0)
    copy = replace(FIRST, updated_at=spoke - timedelta(seconds=60), clock_behind_s=60)
    record_status(ledger, copy, repeated=["web-01"])
    assert ledger.agents()[0].seen_at == spoke
    ahead = replace(copy, order=(1, 1, 2), updated_at=clock.now() + timedelta(days=1))
    record_status(ledger, ahead, repeated=["web-01"])
    assert ledger.agents()[0].seen_at == clock.now()


def test_copies_of_statuses_without_an_order_are_told_apart_by_their_time(ledger: Ledger, clock: TurnedClock) -> None:
    """Earlier versions of the agent send them, and cannot be asked."""
    first = replace(FIRST, order=None, updated_at=clock.now())
    later = replace(first, updated_at=clock.now() + timedelta(seconds=5), groups=("later",))
    older = replace(first, store_generation="g0", updated_at=clock.now() - timedelta(seconds=5))
    will = replace(older, online=False, updated_at=None)
    assert record_status(ledger, first).new == [first]
    assert record_status(ledger, later, repeated=["web-01"]).new == [later]
    for old in (first, older, will):
        recorded = record_status(ledger, old, repeated=["web-01"])
        assert (recorded.new, recorded.requests) == ([], [])
    assert record_status(ledger, older).new == [older], "it speaks now"


def test_acceptance_of_an_earlier_process_does_not_count(ledger: Ledger) -> None:
    """Delivered late, it would keep a command that a restored snapshot does not have from being sent again."""
    record_status(ledger, FIRST)
    sent = send(ledger)
    record_feedback(ledger, "web-01", [feedback(FeedbackKind.ACCEPTED, sent, incarnation="i0")])
    assert ledger.get(sent.id).state is CommandState.SENT


def test_true_result_replaces_the_verdict_of_the_server(ledger: Ledger) -> None:
    record_status(ledger, FIRST)
    sent = send(ledger)
    verdict = ledger.abandon(sent.id).result
    said = result(sent)
    assert [ack.command_id for ack in record_feedback(ledger, "web-01", [said]).acks] == [sent.id]
    row = ledger.get(sent.id)
    assert row.result is not None
    assert (row.result["outcome"], row.verdict) == ("success", verdict)
    assert len(record_feedback(ledger, "web-01", [said]).acks) == 1
    other = result(sent, Outcome.ERROR, ErrorCode.FAILED)
    record_feedback(ledger, "web-01", [other])
    assert ledger.get(sent.id) == row, "a result of the agent is never replaced"
    assert [unmatched["digest"] for unmatched in unmatched_results(ledger)] == [other.digest]


def test_refused_number_does_not_replace_the_verdict_of_the_server(ledger: Ledger) -> None:
    """It says that a late copy of the message was refused, not what had happened to the command."""
    record_status(ledger, FIRST)
    sent = send(ledger)
    row = ledger.abandon(sent.id)
    refusal = result(sent, Outcome.ERROR, ErrorCode.SUPERSEDED)
    assert len(record_feedback(ledger, "web-01", [refusal]).acks) == 1
    assert ledger.get(sent.id) == row


def test_store_is_believed_to_have_gone_back_only_once_its_agent_answers(ledger: Ledger) -> None:
    record_status(ledger, will_of(replace(FIRST, order=(0, 1, 1))))
    done, sent = send(ledger), send(ledger)
    record_feedback(ledger, "web-01", [result(done)])
    assert done.sequence is not None
    early = replace(FIRST, epoch=done.sequence.epoch)  # of before it had them, and newer than what is known
    ((_, request),) = record_status(ledger, early).requests
    assert ledger.get(sent.id).command.sequence == sent.sequence
    assert record_status(ledger, replace(early, order=(1, 1, 2), answers=request)).requests == []
    again = ledger.get(sent.id).command.sequence
    assert again is not None
    assert (again.epoch > done.sequence.epoch, again.number) == (True, 1)


def test_gap_of_a_number_that_cannot_be_sent_counts_only_once_its_agent_answers(ledger: Ledger) -> None:
    record_status(ledger, FIRST)
    abandoned, waiting = send(ledger), send(ledger)
    ledger.abandon(abandoned.id)
    gap = replace(feedback(FeedbackKind.GAP, waiting), command_id=None, sequence=waiting.sequence, expected=1)
    turn = ledger.record_turn({"web-01": [gap]})
    assert ledger.get(waiting.id).command.sequence == waiting.sequence
    assert turn.requests == ledger.record_turn({"web-01": [gap]}).requests
    record_status(ledger, replace(FIRST, order=(1, 1, 2), answers=turn.requests["web-01"]))
    again = ledger.get(waiting.id).command.sequence
    assert again is not None
    assert waiting.sequence is not None
    assert (again.epoch > waiting.sequence.epoch, again.number) == (True, 1)


def test_status_of_another_process_at_the_same_place_is_asked_for(ledger: Ledger) -> None:
    record_status(ledger, FIRST)
    assert len(record_status(ledger, replace(FIRST, incarnation="i2")).requests) == 1
    assert record_status(ledger, FIRST).requests == []
