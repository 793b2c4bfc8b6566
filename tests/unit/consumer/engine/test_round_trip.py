"""An agent that receives nothing asks its server for an answer."""

from broker.contract.messages import Ack
from consumer.engine.round_trip import RoundTrip
from tests.support.fakes.clock import TurnedClock


class Ear:
    """How long nothing has arrived."""

    quiet_s = 0.0


def sent_in(round_trip: RoundTrip, clock: TurnedClock, ear: Ear, seconds: int) -> int:
    """Return how many results were due in so many quiet seconds."""
    count = 0
    for _ in range(seconds):
        clock.turn(1)
        ear.quiet_s += 1
        count += len(round_trip.take_due())
    return count


def test_result_is_sent_after_five_quiet_minutes_and_then_less_and_less_often(clock: TurnedClock) -> None:
    ear = Ear()
    round_trip = RoundTrip("web-01", "g1", "i1", clock, lambda: ear.quiet_s)
    assert sent_in(round_trip, clock, ear, 299) == 0
    assert sent_in(round_trip, clock, ear, 1) == 1
    assert 6 <= sent_in(round_trip, clock, ear, 300) <= 12
    assert sent_in(round_trip, clock, ear, 3600) <= 24
    ear.quiet_s = 0.0
    assert sent_in(round_trip, clock, ear, 299) == 0
    assert sent_in(round_trip, clock, ear, 1) == 1


def test_it_is_sent_again_although_it_was_acknowledged_before(clock: TurnedClock) -> None:
    ear = Ear()
    round_trip = RoundTrip("web-01", "g1", "i1", clock, lambda: ear.quiet_s)
    round_trip.request()
    assert sent_in(round_trip, clock, ear, 1) == 1
    round_trip.observe([Ack("round-trip-i1", "i1")])
    assert sent_in(round_trip, clock, ear, 298) == 0
    assert sent_in(round_trip, clock, ear, 1) == 1
