"""A ledger of an older version."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.app.factories import open_database
from broker.contract.codec import encode
from broker.contract.messages import Origin
from broker.errors import LedgerError
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.migrations import SCHEMA_VERSION
from broker.ledger.tables import CommandState
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import command, result

# The tables of version 0.1.0, which had no schema version.
FIRST_TABLES = """
CREATE TABLE agents (name VARCHAR(64) NOT NULL PRIMARY KEY, epoch BIGINT NOT NULL, next_number BIGINT NOT NULL,
    store_generation VARCHAR(128), incarnation VARCHAR(128), online BOOLEAN NOT NULL, status TEXT, seen_at FLOAT,
    resend_at FLOAT, attempts INTEGER NOT NULL);
CREATE TABLE commands (id VARCHAR(128) NOT NULL PRIMARY KEY, agent VARCHAR(64) NOT NULL REFERENCES agents (name),
    epoch BIGINT NOT NULL, number BIGINT NOT NULL, body TEXT NOT NULL, state VARCHAR(16) NOT NULL,
    to_send BOOLEAN NOT NULL, cancel VARCHAR(8) NOT NULL, created_at FLOAT NOT NULL, completed_at FLOAT,
    digest VARCHAR(128), result TEXT, UNIQUE (agent, epoch, number));
CREATE INDEX commands_to_send ON commands (to_send, agent, epoch, number);
CREATE INDEX commands_cancel ON commands (cancel);
CREATE INDEX ix_commands_created_at ON commands (created_at);
CREATE INDEX ix_agents_resend_at ON agents (resend_at);
INSERT INTO agents VALUES ('web-01', 7, 3, NULL, NULL, 0, NULL, NULL, NULL, 0);
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    rows = [("a", 1, "completed", encode([result("a")]).decode()), ("b", 2, "queued", None)]
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST_TABLES)
        for name, number, state, stored in rows:
            values = (name, number, encode([command(name)]).decode(), state, stored)
            connection.execute(
                "INSERT INTO commands VALUES (?, 'web-01', 7, ?, ?, ?, 1, 'no', 0, NULL, NULL, ?)", values
            )
        connection.commit()
    return path


def test_older_ledger_is_migrated_with_its_commands(database: Path) -> None:
    for _ in range(2):
        ledger = Ledger(open_database(f"sqlite:///{database}"), now=TurnedClock().now)
        assert {row.command.id for row in ledger.commands()} >= {"a", "b"}
        operation = ledger.add_operation(
            ["web-01"], "web-01", CommandRequest("restart-agent", {}, Origin("me", "test"))
        )
        assert ledger.operations.progress(operation.id).counts() == {"queued": 1}
        ledger.database.close()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT outcome FROM commands WHERE id IN ('a', 'b')").fetchall() == [
            ("success",),
            (None,),
        ]
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(SCHEMA_VERSION,)]


def test_migration_accepts_an_existing_index_of_agents(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE INDEX commands_of_agent ON commands (agent, state)")
        connection.commit()
    open_database(f"sqlite:///{database}").close()


def test_ledger_of_a_later_version_is_refused(database: Path) -> None:
    open_database(f"sqlite:///{database}").close()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
        connection.commit()
    with raises_code(LedgerError, "newer_schema") as refused:
        open_database(f"sqlite:///{database}")
    assert "schema 99" in str(refused.value)


def test_failed_migration_step_leaves_the_ledger_unchanged(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ALTER TABLE commands ADD COLUMN outcome TEXT")
    with raises_code(LedgerError, "database_failed") as failed:
        open_database(f"sqlite:///{database}")
    assert "duplicate column name: outcome" in str(failed.value)
    assert "operation_id" not in shape_of(database)[0]["commands"]


def test_migrated_ledger_has_the_tables_of_a_new_one(database: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    for path in (database, new):
        open_database(f"sqlite:///{path}").close()
    assert shape_of(database) == shape_of(new)


@pytest.mark.parametrize("steps", range(1, 14, 3))
def test_interrupted_migration_goes_on_where_it_was(database: Path, tmp_path: Path, steps: int) -> None:
    before: list[str] = []

    def interrupt(text: str) -> None:
        before.append(text)
        if len(before) == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_database(f"sqlite:///{database}", tell=interrupt)
    with raises_code(LedgerError, "older_schema"):
        open_database(f"sqlite:///{database}", read_only=True)
    after: list[str] = []
    open_database(f"sqlite:///{database}", tell=after.append).close()
    done = [text.partition(" (")[0] for text in (*before, *after[:-1])]
    assert len(done) == len(set(done)) == SCHEMA_VERSION + 7, "no step is repeated, and one makes seven indexes"
    assert re.search(r"was migrated in \d+\.\d s", after[-1])
    open_database(f"sqlite:///{tmp_path}/new.db", tell=pytest.fail).close()
    assert shape_of(database) == shape_of(tmp_path / "new.db")


def test_older_program_sends_and_completes_commands_in_a_migrated_ledger(database: Path) -> None:
    """A server that was not restarted has the ledger open while another program migrates it."""
    with closing(sqlite3.connect(database)) as older:
        open_database(f"sqlite:///{database}").close()
        older.execute("UPDATE commands SET state = 'sent', to_send = 0 WHERE to_send IS 1 AND state = 'queued'")
        assert older.execute("SELECT id FROM commands WHERE state = ?", ["sent"]).fetchall() == [("b",)]
        older.execute("UPDATE commands SET state = 'completed', result = '{}' WHERE id = 'b'")
        older.commit()
    with open_database(f"sqlite:///{database}") as migrated:
        assert {row.state for row in Ledger(migrated, now=TurnedClock().now).commands()} == {CommandState.COMPLETED}


def shape_of(path: Path) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Return the columns of each table, and the definition of each index."""
    engine = sa.create_engine(f"sqlite:///{path}")
    inspector = sa.inspect(engine)
    tables = {table: {it["name"] for it in inspector.get_columns(table)} for table in inspector.get_table_names()}
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        indexes = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL"))
    return tables, {name: " ".join(sql.split()) for name, sql in indexes.items()}
