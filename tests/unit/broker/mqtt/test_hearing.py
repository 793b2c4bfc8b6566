"""A connection on which nothing arrives although something should is deaf."""

import pytest

from broker.mqtt.hearing import Hearing
from tests.support.fakes.clock import TurnedClock


@pytest.fixture
def hearing(clock: TurnedClock) -> Hearing:
    return Hearing(clock.monotonic)


def deaf_after(hearing: Hearing, clock: TurnedClock, seconds: float, *, expected: bool = True) -> bool:
    clock.turn(seconds)
    return hearing.is_deaf(lambda: expected)


def test_connection_is_deaf_after_ten_quiet_minutes(hearing: Hearing, clock: TurnedClock) -> None:
    assert not deaf_after(hearing, clock, 599)
    hearing.heard()
    assert not deaf_after(hearing, clock, 599)
    assert hearing.quiet_s == 599
    assert deaf_after(hearing, clock, 1)


def test_time_of_an_earlier_connection_does_not_count(hearing: Hearing, clock: TurnedClock) -> None:
    clock.turn(3600)
    hearing.begin()
    assert not deaf_after(hearing, clock, 599)


def test_quiet_fleet_from_which_nothing_is_expected_is_not_deaf_and_not_asked_about_all_the_time(
    hearing: Hearing, clock: TurnedClock
) -> None:
    asked = []
    for _ in range(1200):
        clock.turn(1)
        assert not hearing.is_deaf(lambda: bool(asked.append(None)))
    assert len(asked) == 2


def test_patience_grows_while_new_connections_do_not_help(hearing: Hearing, clock: TurnedClock) -> None:
    for patience_s in (600, 1200, 2400, 3600, 3600):
        assert not deaf_after(hearing, clock, patience_s - 1)
        assert deaf_after(hearing, clock, 1)
        hearing.begin()
    hearing.heard()
    assert deaf_after(hearing, clock, 600)
