"""When results are due."""

from dataclasses import replace

import pytest

from broker.contract.codec import encode
from broker.contract.messages import Ack, Feedback
from broker.contract.states import FeedbackKind
from consumer.engine import outbox as module
from consumer.engine.outbox import FeedbackOutbox
from consumer.ports import EncodedFeedback, LaterFeedback, StoredCommand
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.makers import NOW, command, decoded, result, stored_result


@pytest.fixture
def outbox(store: MemoryCommandStore, clock: TurnedClock) -> FeedbackOutbox:
    return FeedbackOutbox(store, clock, lambda sent: min(2.0 * 2**sent, 8.0))


def complete(store: MemoryCommandStore, name: str) -> StoredCommand:
    return store.mark_completed(store.store_command(command(name), NOW), stored_result(name))


def acked(outbox: FeedbackOutbox, name: str) -> None:
    assert outbox.acknowledged_by([Ack(name, "d")]) == [name]
    outbox.remove([name])


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


def test_slow_server_is_given_twice_the_time_of_its_last_ack(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    for name in "ab":
        outbox.add_result(complete(store, name))
    outbox.take_due()
    clock.turn(1.5)
    acked(outbox, "a")
    clock.turn(2.9)
    assert outbox.take_due() == []
    clock.turn(0.2)
    assert ids(decoded(outbox.take_due())) == ["b"]


def test_each_ack_gives_the_results_behind_it_more_time(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    for name in "abc":
        outbox.add_result(complete(store, name))
        outbox.take_due()
        clock.turn(0.1)
    for name in "ab":
        clock.turn(1.5)
        acked(outbox, name)
    clock.turn(5.9)
    assert outbox.take_due() == []
    clock.turn(0.6)
    assert ids(decoded(outbox.take_due())) == ["c"]


def test_result_that_was_overtaken_is_sent_again_though_acks_arrive(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    for name in "lost", "a", "b":
        outbox.add_result(complete(store, name))
        outbox.take_due()
        clock.turn(0.1)
    acked(outbox, "a")
    clock.turn(1.9)
    acked(outbox, "b")
    clock.turn(2.0)
    assert ids(decoded(outbox.take_due())) == ["lost"]


def test_new_connection_forgets_how_slow_the_server_was(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    for name in "abc":
        outbox.add_result(complete(store, name))
    outbox.take_due()
    clock.turn(100.0)
    acked(outbox, "a")
    outbox.requeue_all()
    acked(outbox, "b")  # sent on the earlier connection
    assert ids(decoded(outbox.take_due())) == ["c"]
    outbox.add_result(complete(store, "d"))
    outbox.take_due()
    clock.turn(2.0)
    assert ids(decoded(outbox.take_due())) == ["d"]


def test_ack_of_a_result_that_was_sent_twice_says_nothing_of_the_server(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    outbox.add_result(complete(store, "a"))
    outbox.take_due()
    clock.turn(100.0)
    outbox.take_due()
    clock.turn(1.0)
    assert outbox.acknowledged_by([Ack("a", "d")]) == ["a"]
    outbox.add_result(complete(store, "b"))
    outbox.take_due()
    clock.turn(2.0)
    assert ids(decoded(outbox.take_due()))[-1:] == ["b"]


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


def test_only_a_window_of_results_is_sent_again_until_acks_arrive(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WINDOW", 2)
    for name in "abcd":
        outbox.add_result(complete(store, name))
    assert ids(decoded(outbox.take_due())) == ["a", "b", "c", "d"]
    clock.turn(2.0)
    assert outbox.next_due() == clock.monotonic()
    assert ids(decoded(outbox.take_due())) == ["a", "b"]
    assert outbox.next_due() == clock.monotonic() + 4.0
    outbox.remove(["a"])
    assert ids(decoded(outbox.take_due())) == ["c"]
    outbox.requeue_all()
    assert ids(decoded(outbox.take_due())) == ["b", "c"]


def test_result_that_is_never_acked_makes_room_for_others(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WINDOW", 1)
    for name in "ab":
        outbox.add_result(complete(store, name))
    outbox.take_due()
    sent = []
    for _ in range(20):
        clock.turn(8.0)
        sent += ids(decoded(outbox.take_due()))
    assert sent == ["a"] * 8 + ["b"] * 8 + ["a"] * 4


def test_results_that_alone_were_sent_often_make_room_for_later_ones(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WINDOW", 1)
    outbox.add_result(complete(store, "a"))
    for _ in range(12):
        outbox.take_due()
        clock.turn(8.0)
    outbox.add_result(complete(store, "b"))
    sent = []
    for _ in range(12):
        sent += ids(decoded(outbox.take_due()))
        clock.turn(8.0)
    assert sent.count("b") > 1


def test_result_that_is_given_room_does_not_wait_for_the_one_before_it(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WINDOW", 1)
    for name in "ab":
        outbox.add_result(complete(store, name))
    sent: list[str | None] = []
    while sent.count("a") < 9:
        sent += ids(decoded(outbox.take_due()))
        clock.turn(8.0)
    assert outbox.next_due() == 0.0
    assert ids(decoded(outbox.take_due())) == ["b"]


def test_results_beyond_the_limit_follow_at_once(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    for name in "abc":
        outbox.add_result(complete(store, name))
    assert ids(decoded(outbox.take_due(limit=2))) == ["a", "b"]
    assert outbox.next_due() == clock.monotonic()
    assert ids(decoded(outbox.take_due(limit=2))) == ["c"]
    clock.turn(3.0)
    assert ids(decoded(outbox.take_due(limit=2))) == ["a", "b"]
    assert outbox.next_due() == clock.monotonic()
    assert ids(decoded(outbox.take_due(limit=2))) == ["c"]


def test_notice_is_made_only_if_it_is_sent(
    store: MemoryCommandStore, clock: TurnedClock, outbox: FeedbackOutbox
) -> None:
    made: list[str] = []

    def later(name: str) -> LaterFeedback:
        return LaterFeedback(name, FeedbackKind.ACCEPTED, lambda: made.append(name) or news(name))  # type: ignore[func-returns-value]

    outbox.add_notices([later("a"), later("b")])
    outbox.add_result(complete(store, "a"))
    clock.turn(0.04)
    assert outbox.take_due() == [news("b").encoded, stored_result("a").encoded]
    assert made == ["b"]
