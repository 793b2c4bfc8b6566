"""The doctor's findings on ledgers that are staged: real files, and a real PostgreSQL."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.app.factories import open_database, open_ledger
from broker.doctor import ledger as subject
from broker.doctor.ledger import check_ledger
from broker.ledger import sqlite
from broker.ledger.damage import DamagedRow, keep_damaged
from broker.ledger.refused_messages import UnstoredMessage
from broker.system.findings import NOT_CHECKED
from tests.support.brokers import free_port
from tests.support.findings import codes, only
from tests.support.postgresql import PostgreSQL, direct
from tests.support.unprivileged import as_nobody, let_others_pass


def set_version(url: str, version: int) -> None:
    with open_database(url) as database, database.transaction() as connection:
        connection.execute(sa.text("UPDATE schema_version SET version = :version"), {"version": version})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger in SQLite."""
    open_database(f"sqlite:///{tmp_path}/ledger.db").close()
    return tmp_path / "ledger.db"


def test_sound_ledger_is_ok_and_not_changed(ledger_url: str) -> None:
    open_database(ledger_url).close()
    assert codes(check_ledger(ledger_url)) == []


def test_check_leaves_a_file_as_it_is(file: Path) -> None:
    before = file.read_bytes(), file.stat().st_mode, sorted(file.parent.iterdir())
    assert codes(check_ledger(f"sqlite:///{file}")) == []
    assert (file.read_bytes(), file.stat().st_mode, sorted(file.parent.iterdir())) == before


def test_missing_ledger(tmp_path: Path) -> None:
    only(check_ledger(f"sqlite:///{tmp_path}/none.db"), subject.MISSING, f"{tmp_path}/none.db", "acm server")
    assert not (tmp_path / "none.db").exists()


@pytest.fixture(params=["sqlite", "postgresql"])
def own_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger that no other test gets."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return str(request.getfixturevalue("postgresql").new_database())


def test_ledger_of_an_older_version(own_url: str) -> None:
    set_version(own_url, 7)
    found = only(check_ledger(own_url), subject.OLDER, "older version", "acm-server")
    assert found.check == "migrations"


def test_ledger_of_a_newer_version(own_url: str) -> None:
    set_version(own_url, 99)
    only(check_ledger(own_url), subject.NEWER, "schema 99")


def test_database_that_does_not_answer() -> None:
    url = f"postgresql://acm:secret@127.0.0.1:{free_port()}/acm"
    found = only(check_ledger(url), subject.UNREACHABLE, "127.0.0.1")
    assert "secret" not in found.found


def test_lock_that_another_process_keeps(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        only(check_ledger(f"sqlite:///{file}"), subject.LOCKED, "locked by another process", f"fuser {file}")


def test_database_that_only_reads(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    open_database(url).close()
    name = url.rpartition("/")[2]
    with postgresql.connect("postgres") as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    only(check_ledger(url), subject.NOT_ACCESSIBLE, "only reads")


def test_file_of_another_user(file: Path) -> None:
    """Needs root, to become another user."""
    let_others_pass(file.parent)
    with as_nobody():
        only(check_ledger(f"sqlite:///{file}"), subject.NOT_ACCESSIBLE, str(file), "as the user of `acm server`")


def test_damaged_file(file: Path) -> None:
    with file.open("rb+") as opened:
        opened.seek(-4096, 2)
        opened.write(b"\x7f" * 4096)  # the last page, which is an index's
    only(check_ledger(f"sqlite:///{file}"), subject.DAMAGED, str(file), "acm ledger restore")


def test_file_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are notes, and not a database at all. " * 50)
    only(check_ledger(f"sqlite:///{tmp_path}/notes.txt"), subject.UNUSABLE, "notes.txt")


def test_rows_and_messages_that_were_set_aside(ledger_url: str) -> None:
    with open_ledger(ledger_url) as ledger:
        ledger.keep_refused(UnstoredMessage("web-01", "feedback", None, "a trigger", "{}", None))
        with ledger.database.transaction() as connection:
            keep_damaged(connection, DamagedRow("commands", "id", "web-01", "torn", "", None), datetime.now(UTC))
    rows, messages = (it for it in check_ledger(ledger_url) if it.code != "ok")
    assert (rows.code, messages.code) == ("rows_damaged", "messages_refused")
    assert ("1 damaged row" in rows.found, "acm ledger damaged" in str(rows.fix)) == (True, True)
    assert ("1 message" in messages.found, "acm ledger refused" in str(messages.fix)) == (True, True)


def test_what_needs_the_ledger_is_not_checked_without_it(tmp_path: Path) -> None:
    found = subject.with_database("clock", f"sqlite:///{tmp_path}/none.db", lambda _: iter(()))
    only(found, NOT_CHECKED, "ledger")


@contextmanager
def waiting_statement(url: str) -> Iterator[None]:
    """Keep the tables of a ledger from every other transaction, as an administrator's session may do."""
    import psycopg

    with psycopg.connect(direct(url).replace("+psycopg", "")) as connection:
        connection.execute("LOCK TABLE schema_version IN ACCESS EXCLUSIVE MODE")
        yield


def test_lock_that_another_session_keeps(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    open_database(url).close()
    with waiting_statement(url):
        only(check_ledger(f"{url}?options=-c%20lock_timeout%3D100"), subject.LOCKED, "pg_stat_activity")
