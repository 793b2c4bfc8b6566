"""Limits on what may take too long."""

from threading import Event

import pytest

from broker.ledger.deadlines import Deadlines


@pytest.fixture
def overdue() -> Event:
    return Event()


def test_block_that_takes_too_long_is_overdue_beside_one_that_may(overdue: Event) -> None:
    deadlines = Deadlines(overdue.set)
    with deadlines.limit(600), deadlines.limit(0.01):
        assert overdue.wait(20)
    deadlines.close()


def test_limit_of_a_block_ends_with_it(overdue: Event) -> None:
    calls: list[None] = []

    def count() -> None:
        calls.append(None)
        overdue.set()

    deadlines = Deadlines(count)
    for _ in range(100):
        with deadlines.limit(0.05):
            pass
    with deadlines.limit(0.1):  # after those before would have been over
        assert overdue.wait(20)
    assert len(calls) == 1
    deadlines.close()


def test_limit_holds_after_the_thread_has_ended(overdue: Event) -> None:
    deadlines = Deadlines(overdue.set)
    deadlines.close()
    with deadlines.limit(0.01):
        assert overdue.wait(20)
    deadlines.close()
