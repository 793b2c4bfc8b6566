"""A ledger in SQLite for the tests of acm."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.app.factories import open_database
from broker.ledger.ledger import Ledger


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(open_database(url), now=lambda: datetime.now(UTC))
    yield opened
    opened.database.close()
