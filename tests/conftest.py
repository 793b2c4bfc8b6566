"""Fixtures for all tests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from broker.mosquitto.process import MosquittoNotFound, find_mosquitto
from tests.support.brokers import ContainerBroker, LocalBroker, TestBroker, build_image, docker_answers
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.postgresql import PostgreSQL, shared_instance, shared_pooler

# Tests must pass on slow machines.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_HELP = "install Docker (scripts/docker.sh does it on Debian) or `apt-get install mosquitto`"


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A tool that runs in the process of the tests configures its logs; the next test finds them as they were."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


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


@pytest.fixture(scope="session")
def postgresql() -> PostgreSQL:
    """One instance for all tests of a worker; each test takes a database of its own."""
    return shared_instance()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty ledger; a test that takes it runs on both databases."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
    else:
        with request.getfixturevalue("postgresql").borrowed_database() as url:
            yield shared_pooler().pooled(url) if os.environ.get("ACM_TEST_LEDGER") == "pgbouncer" else url


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def store() -> MemoryCommandStore:
    return MemoryCommandStore()
