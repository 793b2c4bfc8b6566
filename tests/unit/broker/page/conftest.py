"""The page before the API of a ledger with three agents: on SQLite or, where the ledger is asked, in each database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.app.factories import open_database
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, running_api, with_agents
from tests.support.fakes.clock import TurnedClock


@contextmanager
def api_on(url: str, clock: TurnedClock) -> Iterator[RunningApi]:
    with (
        open_database(url) as database,
        running_api(with_agents(Ledger(database, now=clock.now)), clock) as running,
    ):
        yield running


@pytest.fixture
def api(tmp_path: Path, clock: TurnedClock) -> Iterator[RunningApi]:
    with api_on(f"sqlite:///{tmp_path}/ledger.db", clock) as running:
        yield running


@pytest.fixture
def each_api(ledger_url: str, clock: TurnedClock) -> Iterator[RunningApi]:
    with api_on(ledger_url, clock) as running:
        yield running
