"""The time that an agent goes by when its machine's clock is wrong."""

from datetime import timedelta

import pytest

from broker.contract.states import ErrorCode
from consumer.engine.executor import check_startable
from consumer.ports import TimeSample
from consumer.trust.trusted_clock import CLOCK_TOLERANCE_S, TrustedClock
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import command


def test_a_small_difference_counts_and_is_not_shown(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(seconds=CLOCK_TOLERANCE_S))
    assert (time.now() - clock.now(), time.behind_s) == (timedelta(seconds=CLOCK_TOLERANCE_S), None)


def test_a_clock_that_is_ahead_of_the_server_changes_nothing(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() - timedelta(days=3))
    assert (time.now(), time.behind_s) == (clock.now(), None)


def test_the_servers_time_goes_on_and_never_back(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(hours=2))
    clock.turn(10)
    time.observe(clock.now() + timedelta(hours=1))
    assert (time.now() - clock.now(), time.behind_s) == (timedelta(hours=2), 7200)


def test_a_command_that_has_expired_by_the_servers_time_is_expired(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    asked = command("a", 1)
    asked = type(asked)(**{**vars(asked), "expires_at": clock.now() + timedelta(hours=1)})
    assert check_startable(asked, time.now(), was_cancelled=False) is None
    time.observe(clock.now() + timedelta(hours=2))
    unfit = check_startable(asked, time.now(), was_cancelled=False)
    assert unfit is not None
    assert unfit.code == ErrorCode.EXPIRED


@pytest.mark.parametrize(("seconds", "shown"), [(61, 60), (119, 120), (86_400, 86_400)])
def test_it_is_shown_in_whole_minutes(clock: TurnedClock, seconds: int, shown: int) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(seconds=seconds))
    assert time.behind_s == shown


def test_the_next_process_begins_with_what_was_kept_and_has_passed_since(clock: TurnedClock) -> None:
    kept = TimeSample(clock.now() + timedelta(days=1), clock.now())
    clock.turn(3600)
    assert TrustedClock(clock, kept).now() - clock.now() == timedelta(days=1)


def test_a_clock_that_was_put_back_does_not_take_the_kept_time_with_it(clock: TurnedClock) -> None:
    kept = TimeSample(clock.now(), clock.now())
    clock.turn(-9 * 86_400)
    assert TrustedClock(clock, kept).now() == kept.server


def test_the_servers_time_is_kept_when_it_has_moved_on_by_more_than_a_minute(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    assert time.sample_to_save(None, busy=True) is None
    time.observe(clock.now())
    kept = time.sample_to_save(None, busy=False)
    assert kept == TimeSample(clock.now(), clock.now())
    clock.turn(60)
    assert time.sample_to_save(kept, busy=True) is None
    clock.turn(1)
    assert time.sample_to_save(kept, busy=False) is None
    assert time.sample_to_save(kept, busy=True) == TimeSample(clock.now(), clock.now())


def test_that_the_clocks_came_together_is_kept_at_once(clock: TurnedClock) -> None:
    kept = TimeSample(clock.now() + timedelta(days=1), clock.now())
    time = TrustedClock(clock)
    time.observe(clock.now())
    assert time.sample_to_save(kept, busy=False) == TimeSample(clock.now(), clock.now())


def test_an_answer_older_than_what_it_answers_puts_the_servers_time_right(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(days=30_000))
    said_at = time.now()
    time.observe_reply(said_at, clock.now())
    assert (time.now(), time.behind_s) == (clock.now(), None)


def test_an_answer_that_was_kept_back_does_not_put_the_time_back(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(days=1))
    said_at = time.now()
    clock.turn(3600)
    time.observe_reply(said_at, said_at + timedelta(seconds=5))
    assert time.behind_s == 86_400


def test_the_answer_to_a_machine_that_is_ahead_changes_nothing(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() - timedelta(hours=1))
    kept = time.sample_to_save(None, busy=True)
    time.observe_reply(clock.now(), clock.now() - timedelta(hours=2))
    assert time.sample_to_save(None, busy=True) == kept
