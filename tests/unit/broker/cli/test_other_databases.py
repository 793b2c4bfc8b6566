"""A database that is not the ledger is named by mistake, or the ledger is only read: nothing is written."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.app.config import ServerConfig
from broker.app.factories import open_database, open_ledger
from broker.app.server import ServerProcess
from broker.cli.exit_codes import exit_code_of
from broker.cli.main import app
from broker.contract.messages import Origin
from broker.errors import LedgerError
from broker.ledger.enqueue import CommandRequest
from tests.support.errors import raises_code
from tests.support.postgresql import PostgreSQL
from tests.unit.broker.cli.test_readers import READERS
from tests.unit.broker.ledger.test_migrations import FIRST_TABLES

Snapshot = dict[str, tuple[int, bytes]]
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))
WRITERS = [
    ["send", "web-01", "restart-agent", "--allow-unknown"],
    ["cancel", "COMMAND"],
    ["group", "add", "edge", "web-01", "--allow-unknown"],
    ["prune", "--older-than", "1d"],
    ["ledger", "restored"],
]
OTHERS = {
    "a browser": "CREATE TABLE moz_places (id INTEGER, url TEXT); INSERT INTO moz_places VALUES (1, 'x');",
    "a browser in WAL mode": "PRAGMA journal_mode=WAL; CREATE TABLE moz_places (id INTEGER, url TEXT);",
    "an agent's store": "CREATE TABLE Settings (key TEXT, value); CREATE TABLE Cache (rowid INTEGER, key BLOB);",
    "one with commands": "CREATE TABLE commands (id INTEGER, command TEXT);",
    "one with agents and commands": (
        "CREATE TABLE commands (id INTEGER, agent TEXT, state TEXT); CREATE TABLE agents (id INTEGER, name TEXT);"
    ),
    "one with a schema version": (
        "CREATE TABLE schema_version (version INTEGER); INSERT INTO schema_version VALUES (3);"
    ),
    "one with a high schema version": (
        "CREATE TABLE schema_version (version INTEGER); INSERT INTO schema_version VALUES (57);"
    ),
    "one of another application id": "PRAGMA application_id=252006673;",
}


def acm(url: str, *words: str) -> Any:
    return CliRunner().invoke(app, words, env={"ACM_LEDGER": url, "COLUMNS": "160"}, catch_exceptions=False)


def serve(url: str, *_: str) -> None:
    ServerProcess(ServerConfig(ledger=url))


def snapshot(directory: Path) -> Snapshot:
    return {path.name: (path.stat().st_mode & 0o777, path.read_bytes()) for path in directory.iterdir()}


def database_of(directory: Path, script: str) -> Path:
    file = directory / "other.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)
    file.chmod(0o644)
    return file


@pytest.mark.parametrize("script", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("command", [acm, serve])
def test_sqlite_database_of_another_program_is_refused_untouched(
    tmp_path: Path, script: str, command: Callable[..., Any]
) -> None:
    file = database_of(tmp_path, script)
    before = snapshot(tmp_path)
    for words in (["agents"], ["send", "web-01", "restart-agent", "--allow-unknown"]):
        with raises_code(LedgerError, "not_a_ledger") as refused:
            command(f"sqlite:///{file}", *words)
        assert str(file) in str(refused.value)
        assert exit_code_of(refused.value) == 3
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("words", [*READERS, *WRITERS], ids=" ".join)
def test_every_command_refuses_the_database_of_another_program(tmp_path: Path, words: list[str]) -> None:
    file = database_of(tmp_path, OTHERS["one with commands"])
    before = snapshot(tmp_path)
    with raises_code(LedgerError, "not_a_ledger"):
        acm(f"sqlite:///{file}", *words)
    assert snapshot(tmp_path) == before


def test_database_that_another_program_has_open_is_refused_and_stays_usable(tmp_path: Path) -> None:
    file = database_of(tmp_path, OTHERS["a browser in WAL mode"])
    with closing(sqlite3.connect(file)) as other:
        other.execute("INSERT INTO moz_places VALUES (1, 'x')")
        other.commit()
        before = snapshot(tmp_path)
        with raises_code(LedgerError, "not_a_ledger"):
            acm(f"sqlite:///{file}", "agents")
        assert {name: it for name, it in snapshot(tmp_path).items() if not name.endswith("-shm")} == {
            name: it for name, it in before.items() if not name.endswith("-shm")
        }
        other.execute("INSERT INTO moz_places VALUES (2, 'y')")
        other.commit()


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_empty_file_is_no_ledger_to_a_reader_and_stays_empty(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "empty.db").touch(0o644)
    before = snapshot(tmp_path)
    with raises_code(LedgerError, "ledger_not_found"):
        acm(f"sqlite:///{tmp_path}/empty.db", *words)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_empty_file_becomes_a_ledger_only_by_what_has_something_to_store(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "empty.db").touch(0o600)
    if words[0] in ("send", "group"):
        acm(f"sqlite:///{tmp_path}/empty.db", *words)
        assert acm(f"sqlite:///{tmp_path}/empty.db", "agents").exit_code == 0
    else:
        with raises_code(LedgerError, "ledger_not_found"):
            acm(f"sqlite:///{tmp_path}/empty.db", *words)
        assert snapshot(tmp_path) == {"empty.db": (0o600, b"")}


@pytest.fixture
def other_tables(postgresql: PostgreSQL) -> Iterator[Callable[[str], str]]:
    def create(script: str) -> str:
        url = postgresql.new_database()
        with postgresql.connect(url) as connection:
            connection.execute(script.encode())
        return url

    return create


def tables_in(postgresql: PostgreSQL, url: str) -> list[tuple[Any, ...]]:
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    with postgresql.connect(url) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("case", [name for name, script in OTHERS.items() if "PRAGMA" not in script])
def test_postgresql_database_of_another_program_is_refused_untouched(
    postgresql: PostgreSQL, other_tables: Callable[[str], str], case: str
) -> None:
    url = other_tables(OTHERS[case].replace("BLOB", "BYTEA").replace("value)", "value TEXT)"))
    before = tables_in(postgresql, url)
    for command in (acm, serve):
        for words in (["agents"], ["send", "web-01", "restart-agent", "--allow-unknown"]):
            with raises_code(LedgerError, "not_a_ledger") as refused:
                command(url, *words)
            assert exit_code_of(refused.value) == 3
    assert tables_in(postgresql, url) == before


def test_ledger_finds_its_place_beside_the_schema_of_another_program(
    postgresql: PostgreSQL, other_tables: Callable[[str], str]
) -> None:
    url = other_tables(f"{OTHERS['one with commands']} CREATE SCHEMA acm")
    with open_ledger(f"{url}?options=-csearch_path=acm") as ledger:
        ledger.add_command("web-01", REQUEST)
        assert len(ledger.commands()) == 1


def test_tables_of_an_extension_are_nobodys(other_tables: Callable[[str], str]) -> None:
    open_database(other_tables("CREATE TABLE spatial (id INTEGER); ALTER EXTENSION plpgsql ADD TABLE spatial")).close()


def unmarked(directory: Path, version: int | None) -> Path:
    file = directory / "ledger.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(FIRST_TABLES)
        if version is not None:
            connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
            connection.execute("INSERT INTO schema_version VALUES (?)", (version,))
        connection.commit()
    file.chmod(0o600)
    return file


def application_id(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("PRAGMA application_id").fetchone()[0])


@pytest.mark.parametrize("version", [None, 0])
def test_ledger_of_a_version_without_the_mark_is_recognized_and_gets_it(tmp_path: Path, version: int | None) -> None:
    file = unmarked(tmp_path, version)
    assert application_id(file) == 0
    open_database(f"sqlite:///{file}").close()
    assert application_id(file) != 0
    open_database(f"sqlite:///{file}").close()


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_command_that_reads_migrates_nothing(tmp_path: Path, words: list[str]) -> None:
    file = unmarked(tmp_path, 0)
    before = snapshot(tmp_path)
    with raises_code(LedgerError, "older_schema") as refused:
        acm(f"sqlite:///{file}", *words)
    assert "acm server" in str(refused.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_command_that_reads_leaves_the_files_as_they_are(tmp_path: Path, words: list[str]) -> None:
    file = tmp_path / "ledger.db"
    with open_ledger(f"sqlite:///{file}") as ledger:
        operation = ledger.add_operation(["web-01"], "web-01", REQUEST)
        ledger.groups.add("edge", ["web-01"])
        ids = {"OPERATION": operation.id, "COMMAND": ledger.commands()[0].command.id}
    file.chmod(0o640)
    before = snapshot(tmp_path)
    assert acm(f"sqlite:///{file}", *(ids.get(word, word) for word in words)).exit_code == 0
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_ledger_that_lacks_its_schema_version_is_not_migrated_again(
    postgresql: PostgreSQL, tmp_path: Path, kind: str
) -> None:
    url = postgresql.new_database() if kind == "postgresql" else f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url) as ledger, ledger.database.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE schema_version")
        if ledger.database.is_sqlite:
            connection.exec_driver_sql("PRAGMA application_id = 0")
    for read_only in (True, False):
        with raises_code(LedgerError, "ledger_incomplete"):
            open_database(url, read_only=read_only)
