"""Rate-limited logging on a turned clock."""

import pytest
import structlog
from structlog.testing import capture_logs

from broker.system.log_throttle import LogLimit, LogThrottle


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_first_line_of_a_kind_is_logged_and_then_one_a_minute() -> None:
    clock = Clock()
    throttle = LogThrottle(clock)
    assert throttle.allow("refused", "topic") == 0
    assert [throttle.allow("refused", "topic") for _ in range(5)] == [None] * 5
    clock.now = 59.9
    assert throttle.allow("refused", "topic") is None
    clock.now = 60.0
    assert throttle.allow("refused", "topic") == 6
    assert throttle.allow("refused", "topic") is None


def test_kinds_are_limited_separately() -> None:
    throttle = LogThrottle(Clock())
    assert throttle.allow("refused", "a") == 0
    assert throttle.allow("refused", "b") == 0
    assert throttle.allow("refused", "a") is None


def test_kind_logged_longest_ago_is_forgotten_beyond_4096_kinds() -> None:
    throttle = LogThrottle(Clock())
    for number in range(4097):
        assert throttle.allow(str(number)) == 0
    assert throttle.allow("1") is None
    assert throttle.allow("0") == 0


def test_warning_counts_those_that_were_suppressed_before_it() -> None:
    clock = Clock()
    throttle = LogThrottle(clock)
    with capture_logs() as lines:
        for _ in range(3):
            throttle.warn(structlog.get_logger(), "refused", "a", agent="a")
        clock.now = 60.0
        throttle.warn(structlog.get_logger(), "refused", "a", agent="a")
    line = {"event": "refused", "log_level": "warning", "agent": "a"}
    assert lines == [line | {"suppressed": 0}, line | {"suppressed": 2}]


def kept(limit: LogLimit, event: str, **facts: str) -> dict[str, object] | None:
    try:
        return dict(limit(None, "warning", {"event": event, **facts}))
    except structlog.DropEvent:
        return None


def test_each_event_is_limited_and_the_first_line_of_the_next_minute_has_the_count() -> None:
    clock = Clock()
    limit = LogLimit(clock)
    assert [kept(limit, "refused", agent="a") is None for _ in range(500)] == [False] * 10 + [True] * 490
    assert kept(limit, "refused", agent="b") == {"event": "refused", "agent": "b"}
    clock.now = 60.0
    assert kept(limit, "refused", agent="a") == {"event": "refused", "agent": "a", "suppressed": 490}
    assert kept(limit, "refused", agent="a") == {"event": "refused", "agent": "a"}


@pytest.mark.parametrize("key", ["agent", "address", "reason"])
def test_event_is_limited_whatever_its_facts_are(key: str) -> None:
    limit = LogLimit(Clock())
    lines = [kept(limit, "refused", **{key: str(number)}) for number in range(10_000)]
    assert len([line for line in lines if line]) == (10 if key == "reason" else 60)


def test_process_is_limited_whatever_its_events_are() -> None:
    limit = LogLimit(Clock())
    assert len([line for number in range(10_000) if (line := kept(limit, f"event-{number}"))]) == 600
