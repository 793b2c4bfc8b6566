"""What the tests of single parts share."""

import pytest

from tests.fakes.clock import TurnedClock
from tests.fakes.memory_store import MemoryCommandStore


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def store() -> MemoryCommandStore:
    return MemoryCommandStore()
