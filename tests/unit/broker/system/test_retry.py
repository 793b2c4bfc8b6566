"""Waits between attempts grow, are bounded and differ."""

from itertools import islice

from broker.system.retry import growing_wait, growing_waits

LONGEST = [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]


def test_waits_double_up_to_300_s_and_are_reduced_by_up_to_half() -> None:
    for waits in (islice(growing_waits(), 12), map(growing_wait, range(12))):
        for wait, longest in zip(waits, LONGEST, strict=True):
            assert longest / 2 <= wait <= longest


def test_first_and_longest_wait_can_be_given() -> None:
    for waits in (
        islice(growing_waits(5.0, first_s=1.0), 4),
        (growing_wait(n, first_s=1, longest_s=5) for n in range(4)),
    ):
        for wait, longest in zip(waits, [1, 2, 4, 5], strict=True):
            assert longest / 2 <= wait <= longest


def test_waits_differ_between_callers() -> None:
    assert len({growing_wait(3) for _ in range(20)}) > 1


def test_late_attempt_waits_no_longer_than_the_longest() -> None:
    assert 150 <= growing_wait(10_000) <= 300
