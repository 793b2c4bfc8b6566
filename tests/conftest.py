"""Fixtures for all tests."""

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from broker.mosquitto.process import MosquittoNotFound, find_mosquitto
from tests.support.brokers import ContainerBroker, LocalBroker, TestBroker, build_image, docker_answers
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore

# Tests must pass on slow machines.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_HELP = "install Docker (scripts/docker.sh does it on Debian) or `apt-get install mosquitto`"


@pytest.fixture(scope="session")
def broker_kind() -> Callable[[], ContainerBroker | LocalBroker]:
    """Which broker this machine can run: a container, else a child process, else a clear failure."""
    if docker_answers():
        build_image()
        return ContainerBroker
    if os.environ.get("ACM_REQUIRE_DOCKER") == "1":
        pytest.fail("ACM_REQUIRE_DOCKER=1 is set and no Docker engine answers: run scripts/docker.sh")
    try:
        find_mosquitto()
    except MosquittoNotFound:
        pytest.fail(f"These tests need an MQTT broker: {_HELP}")
    return LocalBroker


@pytest.fixture
def broker(broker_kind: Callable[[], ContainerBroker | LocalBroker]) -> Iterator[TestBroker]:
    """A running Mosquitto with no data, removed after the test."""
    running = broker_kind()
    if isinstance(running, LocalBroker):
        running.start()
    yield running
    running.remove()


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def store() -> MemoryCommandStore:
    return MemoryCommandStore()
