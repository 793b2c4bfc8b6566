"""Work on many items by the caller and its helpers."""

import threading
from collections.abc import Callable

import pytest

from consumer.trust.side_by_side import SideBySide


def on_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work).start()


def no_thread(work: Callable[[], None]) -> None:
    raise RuntimeError("can't start new thread")


def never(work: Callable[[], None]) -> None:
    """Take the work, as a busy machine does, and do not begin it."""


@pytest.mark.parametrize("spawn", [on_a_thread, no_thread, never])
@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_results_are_in_the_order_of_the_items(spawn: Callable[[Callable[[], None]], None], count: int) -> None:
    assert SideBySide(spawn, 3)(lambda number: number * 2, range(count)) == [2 * it for it in range(count)]


def test_items_are_worked_on_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)
    assert len(SideBySide(on_a_thread, 2)(lambda _: together.wait(), range(3))) == 3
