"""A ledger in SQLite for the tests of acm, and the API of one."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from broker.app.config import ServerConfig
from broker.app.factories import open_database
from broker.contract.messages import Status
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, running_api
from tests.support.places import PLACES, TYPES, MachineClock, Place
from tests.support.recorded import record_status


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(open_database(url), now=lambda: datetime.now(UTC))
    yield opened
    opened.database.close()


@pytest.fixture
def api(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RunningApi]:
    """A ledger with two agents that support two types, in a group, and one that has sent no status.

    Its authority is in `ca`, for tests that make one there.
    """
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # the API logs what it refuses
    clock: Any = MachineClock()
    with open_database(url) as database:
        ledger = Ledger(database, now=clock.now)
        for name in ("web-01", "web-02"):
            record_status(ledger, Status(name, True, "1", "i", "b", "g", supported_types=TYPES))
        ledger.groups.add("edge", ["web-01", "web-02"])
        ledger.groups.add("new", ["new-01"])
        with running_api(ledger, clock, config=ServerConfig(ca=str(tmp_path / "ca"))) as running:
            yield running


@pytest.fixture
def places(api: RunningApi, url: str, tmp_path: Path) -> dict[str, Place]:
    token = api.as_(Role.ADMIN)["Authorization"].removeprefix("Bearer ")
    return {
        "ledger": Place(ACM_LEDGER=url, ACM_CA=str(tmp_path / "ca")),
        "api": Place(ACM_SERVER=api.url, ACM_TOKEN=token),
    }


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    return places[request.param]
