"""Durations as people read them."""

import pytest

from broker.durations import rough_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3.0, "0 s"),
        (0.4, "0 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7199.0, "119 min"),
        (7200.0, "2 h"),
        (2 * 86400.0 - 1, "47 h"),
        (29.9 * 86400.0, "29 days"),
    ],
)
def test_duration_is_in_the_largest_unit_of_which_there_are_two(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text
