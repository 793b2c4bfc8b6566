"""Readiness of a ledger without its server, and of one whose file is gone."""

from pathlib import Path

from broker.app.factories import open_database
from broker.ledger.readiness import LedgerReadiness
from tests.support.fakes.clock import TurnedClock


def test_ledger_whose_file_was_replaced_is_not_ready(tmp_path: Path, clock: TurnedClock) -> None:
    file = tmp_path / "ledger.db"
    with open_database(f"sqlite:///{file}") as database:
        readiness = LedgerReadiness(database, with_server=False, monotonic=clock.monotonic)
        assert readiness().ready
        file.rename(tmp_path / "moved.db")
        assert readiness().ready, "it looks once a second"
        clock.turn(1)
        found = readiness()
    assert [(it.name, it.ok) for it in found.checks] == [("ledger", False)]
    assert not found.ready


def test_ledger_without_a_server_is_not_ready_for_commands(tmp_path: Path, clock: TurnedClock) -> None:
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        found = LedgerReadiness(database, with_server=True, monotonic=clock.monotonic)()
    assert {it.name: it.code for it in found.checks if not it.ok} == {
        "server": "not_running",
        "broker": "not_connected",
        "intake": "stands_still",
    }
