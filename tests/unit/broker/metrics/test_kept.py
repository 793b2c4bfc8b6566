"""Metrics that are not read each time they are scraped."""

from collections.abc import Iterable

import pytest

from broker.metrics.kept import kept
from broker.metrics.values import Family, Kind, Metric, gauge
from tests.support.fakes.clock import TurnedClock

THING = Metric("acm_things", Kind.GAUGE, "Things.")


@pytest.mark.parametrize(("took_s", "fresh_s"), [(0.0, 5.0), (0.2, 5.0), (1.0, 20.0)])
def test_reading_takes_at_most_a_twentieth_of_the_time(took_s: float, fresh_s: float) -> None:
    clock, reads = TurnedClock(), 0

    def source() -> Iterable[Family]:
        nonlocal reads
        reads += 1
        clock.turn(took_s)
        return [gauge(THING, reads)]

    families = kept(source, clock.monotonic)
    for _ in range(3):
        assert list(families()) == [gauge(THING, 1)]
    clock.turn(fresh_s - 0.01)
    assert list(families()) == [gauge(THING, 1)]
    clock.turn(0.02)
    assert list(families()) == [gauge(THING, 2)]
