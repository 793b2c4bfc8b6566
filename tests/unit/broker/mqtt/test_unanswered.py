"""A connection is judged by the answers to its packets."""

import pytest

from broker.mqtt.unanswered import Unanswered
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.mqtt5_broker import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
)


@pytest.fixture
def unanswered(clock: TurnedClock) -> Unanswered:
    return Unanswered(clock.monotonic)


@pytest.mark.parametrize(
    ("kind", "answer", "longest_s", "what"),
    [
        (PUBLISH, PUBACK, 60, "a message for 60 s"),
        (SUBSCRIBE, SUBACK, 60, "a subscription for 60 s"),
        (PINGREQ, PINGRESP, 60, "a ping for 60 s"),
        (CONNECT, CONNACK, 15, "it answers nothing"),
    ],
)
def test_packet_without_an_answer_is_a_problem_after_its_time(
    unanswered: Unanswered, clock: TurnedClock, kind: int, answer: int, longest_s: float, what: str
) -> None:
    unanswered.sent(kind, 7)
    clock.turn(longest_s - 0.1)
    assert unanswered.problem is None
    clock.turn(0.1)
    assert what in (unanswered.problem or "")
    unanswered.answered(answer, 7)
    assert unanswered.problem is None


def test_packets_that_have_no_answer_are_not_waited_for(unanswered: Unanswered, clock: TurnedClock) -> None:
    unanswered.sent(PUBACK, 1)
    unanswered.sent(DISCONNECT, 0)
    clock.turn(3600)
    assert unanswered.problem is None


def test_one_lost_answer_among_many_is_noticed(unanswered: Unanswered, clock: TurnedClock) -> None:
    unanswered.sent(PUBLISH, 1)
    for packet_id in range(2, 62):
        unanswered.sent(PUBLISH, packet_id)
        clock.turn(1)
        unanswered.answered(PUBACK, packet_id)
    assert unanswered.problem is not None


def test_answers_that_come_slowly_and_in_order_are_no_problem(unanswered: Unanswered, clock: TurnedClock) -> None:
    unanswered.sent(SUBSCRIBE, 1)
    for packet_id in range(2, 22):
        unanswered.sent(PUBLISH, packet_id)
    unanswered.sent(PINGREQ, 0)
    for answer, packet_id in ((SUBACK, 1), *((PUBACK, it) for it in range(2, 22)), (PINGRESP, 99)):
        clock.turn(59)
        assert unanswered.problem is None
        unanswered.answered(answer, packet_id)
    clock.turn(3600)
    assert unanswered.problem is None


def test_ping_that_is_repeated_keeps_its_first_time(unanswered: Unanswered, clock: TurnedClock) -> None:
    unanswered.sent(PINGREQ, 0)
    clock.turn(59)
    unanswered.sent(PINGREQ, 0)
    clock.turn(1)
    assert unanswered.problem is not None


def test_answer_with_another_packet_id_answers_nothing(unanswered: Unanswered, clock: TurnedClock) -> None:
    unanswered.sent(PUBLISH, 1)
    unanswered.answered(PUBACK, 2)
    unanswered.answered(SUBACK, 1)
    clock.turn(60)
    assert unanswered.problem is not None


def test_new_connection_waits_for_nothing_of_the_earlier_one(unanswered: Unanswered, clock: TurnedClock) -> None:
    unanswered.sent(PUBLISH, 1)
    clock.turn(60)
    unanswered.clear()
    assert unanswered.problem is None
