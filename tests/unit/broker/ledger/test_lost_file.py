"""A ledger in SQLite whose file is taken away while it is open."""

import shutil
from pathlib import Path

import pytest

from broker.app.factories import open_ledger
from broker.contract.messages import Origin
from broker.errors import LedgerError
from broker.ledger.enqueue import CommandRequest
from tests.support.errors import raises_code

REQUEST = CommandRequest("restart-agent", {}, Origin("test", "test"))


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_ledger_that_is_taken_away_confirms_nothing(tmp_path: Path, how: str) -> None:
    file = tmp_path / "ledger.db"
    with open_ledger(f"sqlite:///{file}") as ledger:
        ledger.add_command("web-01", REQUEST)
        if how == "replaced":
            shutil.copy(file, tmp_path / "copy")
            (tmp_path / "copy").replace(file)
        else:
            file.unlink()
        with raises_code(LedgerError, "ledger_replaced"):
            ledger.add_command("web-01", REQUEST)
