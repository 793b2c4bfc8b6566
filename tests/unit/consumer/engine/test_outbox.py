"""When results are due."""

import itertools
from dataclasses import replace

import pytest

from broker.contract.codec import encode
from broker.contract.messages import Ack, Feedback
from broker.contract.states import FeedbackKind
from consumer.engine.outbox import FeedbackOutbox
from consumer.ports import EncodedFeedback, StoredCommand
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.makers import NOW, command, decoded, result, stored_result


@pytest.fixture
def outbox(store: MemoryCommandStore, clock: TurnedClock) -> FeedbackOutbox:
    return FeedbackOutbox(store, clock, lambda: itertools.chain([2.0, 4.0], itertools.repeat(8.0)))


def complete(store: MemoryCommandStore, name: str) -> StoredCommand:
    return store.mark_completed(store.store_command(command(name), NOW), stored_result(name))


def ids(due: list[Feedback]) -> list[str | None]:
    return [item.command_id for item in due]


def test_result_is_due_at_once_and_again_with_backoff(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_result(complete(store, "a"))
    sendings = []
    for second in range(16):
        sendings += [second] * len(outbox.take_due())
        clock.turn(1.0)
    assert sendings == [0, 2, 6, 14]


def test_resent_result_is_read_from_the_store(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_result(complete(store, "a"))
    assert decoded(outbox.take_due()) == [result("a")]
    clock.turn(2.0)
    assert decoded(outbox.take_due()) == [result("a")]


def test_every_result_is_due_after_a_reconnect(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    for name in "ab":
        outbox.add_result(complete(store, name))
    outbox.take_due()
    outbox.requeue_all()
    assert ids(decoded(outbox.take_due())) == ["a", "b"]


def test_only_an_ack_with_the_digest_confirms_a_result(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_result(complete(store, "a"))
    assert outbox.acknowledged_by([Ack("a", "another"), Ack("unknown", "d")]) == []
    assert outbox.acknowledged_by([Ack("a", "d"), Ack("a", "d")]) == ["a"]
    outbox.remove(["a"])
    clock.turn(100.0)
    assert outbox.take_due() == []
    assert outbox.next_due() is None


def test_results_of_an_earlier_process_are_queued(store: MemoryCommandStore, outbox: FeedbackOutbox) -> None:
    complete(store, "a")
    store.store_command(command("b"), NOW)
    outbox.load()
    assert ids(decoded(outbox.take_due())) == ["a"]


def news(name: str, kind: FeedbackKind = FeedbackKind.ACCEPTED) -> EncodedFeedback:
    said = replace(result(name), kind=kind, status="pending", outcome=None, digest=None)
    return EncodedFeedback(said, encode([said]))


def test_notice_is_held_back_for_a_moment(clock: TurnedClock, outbox: FeedbackOutbox) -> None:
    outbox.add_notices([news("a")])
    assert outbox.take_due() == []
    assert outbox.next_due() == pytest.approx(clock.monotonic() + 0.03)
    clock.turn(0.04)
    assert outbox.take_due() == [news("a").encoded]
    assert outbox.take_due() == []


def test_notice_is_dropped_if_the_result_comes_first(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_notices([news("a"), news("a", FeedbackKind.PROGRESS), news("b")])
    outbox.add_result(complete(store, "a"))
    clock.turn(0.04)
    assert outbox.take_due() == [news("b").encoded, stored_result("a").encoded]


def test_repeated_command_is_answered_while_its_result_waits(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_result(complete(store, "a"))
    outbox.take_due()
    outbox.add_notices([stored_result("a")])
    clock.turn(0.04)
    assert decoded(outbox.take_due()) == [result("a")]
