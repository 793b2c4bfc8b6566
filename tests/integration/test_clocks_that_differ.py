"""Clocks of operators' machines that differ from that of the ledger's database."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.app.factories import open_database, utc_now
from broker.ledger.clock import LedgerClock
from tests.faults.clocks import compiled
from tests.support.postgresql import PostgreSQL

ROOT = Path(__file__).resolve().parents[2]
MINUTES = timedelta(minutes=1)


def sent(url: str, directory: Path, ahead_s: int, expires_in: str) -> tuple[dict[str, str], str]:
    """Send a command from a machine whose clock is ahead, and return it with what was on stderr."""
    library, offset = compiled(directory / f"clock-{ahead_s}.so"), directory / "offset"
    offset.write_text(str(ahead_s))
    words = ["send", "web-01", "restart-agent", "--allow-unknown", "--expires-in", expires_in, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "broker", *words, "--ledger", url],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library), "ACM_FAULTS_CLOCK": str(offset)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["commands"][0]["command"], done.stderr


@pytest.mark.parametrize(("ahead_s", "word"), [(-3600, "behind"), (3600, "ahead")])
def test_database_decides_what_expires(postgresql: PostgreSQL, tmp_path: Path, ahead_s: int, word: str) -> None:
    before = datetime.now(UTC)
    command, said = sent(postgresql.new_database(), tmp_path, ahead_s, "10m")
    created, expires = (datetime.fromisoformat(command[name]) for name in ("created_at", "expires_at"))
    assert before - MINUTES < created < datetime.now(UTC) + MINUTES
    assert abs(expires - created - 10 * MINUTES) < MINUTES
    assert (f"3600 s {word}" in said, said.count("\n")) == (True, 1)


def test_clock_of_the_database_goes_on_and_is_read_again(postgresql: PostgreSQL) -> None:
    local = {"ahead": timedelta(hours=2)}
    with open_database(postgresql.new_database()) as database:
        clock = LedgerClock(database, lambda: utc_now() + local["ahead"])
        local["ahead"] = timedelta(days=9)
        first, second = clock(), clock()
        assert first <= second < utc_now() + MINUTES
        assert timedelta(hours=2) - MINUTES < clock.skew < timedelta(hours=2) + MINUTES


def test_clock_of_this_machine_is_that_of_a_ledger_in_sqlite(tmp_path: Path) -> None:
    then = datetime(2020, 1, 1, tzinfo=UTC)
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        clock = LedgerClock(database, lambda: then)
        assert (clock(), clock.warning) == (then, None)
