"""The time that an agent uses when its machine's clock is wrong."""

from datetime import timedelta

import pytest

from broker.contract.states import ErrorCode, State
from consumer.engine.start_check import StartCheck
from consumer.ports import StoredCommand, TimeSample
from consumer.trust.trusted_clock import CLOCK_TOLERANCE_S, TrustedClock
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import command


def test_small_clock_difference_is_applied_but_not_shown(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(seconds=CLOCK_TOLERANCE_S))
    assert (time.now() - clock.now(), time.behind_s) == (timedelta(seconds=CLOCK_TOLERANCE_S), None)


def test_machine_clock_ahead_of_the_server_changes_nothing(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() - timedelta(days=3))
    assert (time.now(), time.behind_s) == (clock.now(), None)


def test_servers_time_advances_and_never_goes_back(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(hours=2))
    clock.turn(10)
    time.observe(clock.now() + timedelta(hours=1))
    assert (time.now() - clock.now(), time.behind_s) == (timedelta(hours=2), 7200)


def test_command_that_expired_by_the_servers_time_is_expired(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    asked = command("a", 1)
    asked = type(asked)(**{**vars(asked), "expires_at": clock.now() + timedelta(hours=1)})
    check, stored = StartCheck(time, lambda signed_by: None), StoredCommand("c/1", asked, State.PENDING, time.now())
    assert check.unfit(stored, was_cancelled=False) is None
    time.observe(clock.now() + timedelta(hours=2))
    unfit = check.unfit(stored, was_cancelled=False)
    assert unfit is not None
    assert unfit.code == ErrorCode.EXPIRED


@pytest.mark.parametrize(("seconds", "shown"), [(61, 60), (119, 120), (86_400, 86_400)])
def test_clock_difference_is_shown_in_whole_minutes(clock: TurnedClock, seconds: int, shown: int) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(seconds=seconds))
    assert time.behind_s == shown


def test_next_process_starts_from_the_saved_time_plus_elapsed(clock: TurnedClock) -> None:
    kept = TimeSample(clock.now() + timedelta(days=1), clock.now())
    clock.turn(3600)
    assert TrustedClock(clock, kept).now() - clock.now() == timedelta(days=1)


def test_setting_the_machine_clock_back_keeps_the_saved_time(clock: TurnedClock) -> None:
    kept = TimeSample(clock.now(), clock.now())
    clock.turn(-9 * 86_400)
    assert TrustedClock(clock, kept).now() == kept.server


def test_servers_time_is_saved_after_more_than_a_minute(clock: TurnedClock) -> None:
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


def test_end_of_a_clock_difference_is_saved_at_once(clock: TurnedClock) -> None:
    kept = TimeSample(clock.now() + timedelta(days=1), clock.now())
    time = TrustedClock(clock)
    time.observe(clock.now())
    assert time.sample_to_save(kept, busy=False) == TimeSample(clock.now(), clock.now())


def test_reply_older_than_its_request_corrects_the_servers_time(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(days=30_000))
    said_at = time.now()
    time.observe_reply(said_at, clock.now())
    assert (time.now(), time.behind_s) == (clock.now(), None)


def test_delayed_reply_does_not_set_the_time_back(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() + timedelta(days=1))
    said_at = time.now()
    clock.turn(3600)
    time.observe_reply(said_at, said_at + timedelta(seconds=5))
    assert time.behind_s == 86_400


def test_reply_to_a_machine_ahead_of_the_server_changes_nothing(clock: TurnedClock) -> None:
    time = TrustedClock(clock)
    time.observe(clock.now() - timedelta(hours=1))
    kept = time.sample_to_save(None, busy=True)
    time.observe_reply(clock.now(), clock.now() - timedelta(hours=2))
    assert time.sample_to_save(None, busy=True) == kept
