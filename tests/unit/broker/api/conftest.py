"""The API of a ledger with three agents, in each kind of database."""

from collections.abc import Iterator

import pytest

from broker.app.factories import open_database
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, running_api, with_agents
from tests.support.fakes.clock import TurnedClock


@pytest.fixture
def api(ledger_url: str, clock: TurnedClock) -> Iterator[RunningApi]:
    with (
        open_database(ledger_url) as database,
        running_api(with_agents(Ledger(database, now=clock.now)), clock) as running,
    ):
        yield running
