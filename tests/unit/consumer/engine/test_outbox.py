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


def test_a_result_is_due_at_once_and_again_after_growing_waits(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_result(complete(store, "a"))
    sendings = []
    for second in range(16):
        sendings += [second] * len(outbox.take_due())
        clock.turn(1.0)
    assert sendings == [0, 2, 6, 14]


def test_a_result_sent_again_is_the_one_that_the_store_holds(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_result(complete(store, "a"))
    assert decoded(outbox.take_due()) == [result("a")]
    clock.turn(2.0)
    assert decoded(outbox.take_due()) == [result("a")]


def test_after_a_reconnect_everything_is_due(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    for name in "ab":
        outbox.add_result(complete(store, name))
    outbox.take_due()
    outbox.requeue_all()
    assert ids(decoded(outbox.take_due())) == ["a", "b"]


def test_only_the_ack_with_the_digest_ends_it(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_result(complete(store, "a"))
    assert outbox.acknowledged_by([Ack("a", "another"), Ack("unknown", "d")]) == []
    assert outbox.acknowledged_by([Ack("a", "d"), Ack("a", "d")]) == ["a"]
    outbox.remove(["a"])
    clock.turn(100.0)
    assert outbox.take_due() == []
    assert outbox.next_due() is None


def test_what_the_store_holds_from_an_earlier_run_is_taken_up(
    store: MemoryCommandStore, outbox: FeedbackOutbox
) -> None:
    complete(store, "a")
    store.store_command(command("b"), NOW)
    outbox.load()
    assert ids(decoded(outbox.take_due())) == ["a"]


def news(name: str, kind: FeedbackKind = FeedbackKind.ACCEPTED) -> EncodedFeedback:
    said = replace(result(name), kind=kind, status="pending", outcome=None, digest=None)
    return EncodedFeedback(said, encode([said]))


def test_news_is_held_for_a_moment(clock: TurnedClock, outbox: FeedbackOutbox) -> None:
    outbox.add_notices([news("a")])
    assert outbox.take_due() == []
    assert outbox.next_due() == pytest.approx(clock.monotonic() + 0.03)
    clock.turn(0.04)
    assert outbox.take_due() == [news("a").encoded]
    assert outbox.take_due() == []


def test_news_that_a_result_overtakes_is_not_sent(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_notices([news("a"), news("a", FeedbackKind.PROGRESS), news("b")])
    outbox.add_result(complete(store, "a"))
    clock.turn(0.04)
    assert outbox.take_due() == [news("b").encoded, stored_result("a").encoded]


def test_an_answer_to_a_repeated_command_is_sent_though_its_result_waits(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_result(complete(store, "a"))
    outbox.take_due()
    outbox.add_notices([stored_result("a")])
    clock.turn(0.04)
    assert decoded(outbox.take_due()) == [result("a")]
