"""Counts in the tables and messages of acm."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.app.factories import open_database
from broker.cli.main import app
from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a ledger with one thing of each kind."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(open_database(url), now=lambda: datetime.now(UTC))
    ledger.add_operation(["web-01"], "web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    ledger.groups.add("edge", ["web-01"])
    (tmp_path / "file").write_text("x")
    ledger.blobs.put(tmp_path / "file")
    ledger.database.close()
    return url


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("agents", "1 agent"),
        ("commands", "1 command"),
        ("operation list", "1 operation"),
        ("group list", "1 group"),
        ("blob list", "1 blob"),
        ("token list", "0 tokens"),
    ],
)
def test_title_of_a_list_has_the_number_of_its_rows(url: str, words: str, text: str) -> None:
    shown = CliRunner().invoke(app, [*words.split(), "-o", "table"], env={"ACM_LEDGER": url, "COLUMNS": "200"})
    assert text in [line.strip() for line in shown.output.splitlines()]


def test_cancelled_operation_of_one_command_has_the_singular(url: str) -> None:
    ledger = Ledger(open_database(url), now=lambda: datetime.now(UTC))
    (operation,) = ledger.operations.newest(1)
    ledger.database.close()
    done = CliRunner().invoke(app, ["operation", "cancel", operation.id], env={"ACM_LEDGER": url})
    assert done.output == "Cancellation of 1 command requested.\n"
