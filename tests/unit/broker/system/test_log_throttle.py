"""Rate-limited logging on a turned clock."""

import structlog
from structlog.testing import capture_logs

from broker.system.log_throttle import LogThrottle


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
