"""The time that an agent goes by when its machine's clock is wrong."""

from datetime import timedelta

import pytest

from broker.contract.states import ErrorCode
from consumer.executor import not_begun
from consumer.server_clock import CLOCK_TOLERANCE_S, ServerClock
from tests.fakes.clock import TurnedClock
from tests.makers import command


def test_a_small_difference_counts_and_is_not_shown(clock: TurnedClock) -> None:
    time = ServerClock(clock)
    time.hear(clock.now() + timedelta(seconds=CLOCK_TOLERANCE_S))
    assert (time.now() - clock.now(), time.behind_s) == (timedelta(seconds=CLOCK_TOLERANCE_S), None)


def test_a_clock_that_is_ahead_of_the_server_changes_nothing(clock: TurnedClock) -> None:
    time = ServerClock(clock)
    time.hear(clock.now() - timedelta(days=3))
    assert (time.now(), time.behind_s) == (clock.now(), None)


def test_the_servers_time_goes_on_and_never_back(clock: TurnedClock) -> None:
    time = ServerClock(clock)
    time.hear(clock.now() + timedelta(hours=2))
    clock.turn(10)
    time.hear(clock.now() + timedelta(hours=1))
    assert (time.now() - clock.now(), time.behind_s) == (timedelta(hours=2), 7200)


def test_a_command_that_has_expired_by_the_servers_time_is_expired(clock: TurnedClock) -> None:
    time = ServerClock(clock)
    asked = command("a", 1)
    asked = type(asked)(**{**vars(asked), "expires_at": clock.now() + timedelta(hours=1)})
    assert not_begun(asked, time.now(), was_cancelled=False) is None
    time.hear(clock.now() + timedelta(hours=2))
    unfit = not_begun(asked, time.now(), was_cancelled=False)
    assert unfit is not None
    assert unfit.code == ErrorCode.EXPIRED


@pytest.mark.parametrize(("seconds", "shown"), [(61, 60), (119, 120), (86_400, 86_400)])
def test_it_is_shown_in_whole_minutes(clock: TurnedClock, seconds: int, shown: int) -> None:
    time = ServerClock(clock)
    time.hear(clock.now() + timedelta(seconds=seconds))
    assert time.behind_s == shown
