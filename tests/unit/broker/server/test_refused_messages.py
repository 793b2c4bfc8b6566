"""What an agent sends and the ledger's database never takes: it stops no other message, and is kept for operators."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.app.factories import open_database
from broker.cli.main import app
from broker.contract.codec import decode_acks, encode
from broker.contract.messages import Command, Origin, Status
from broker.contract.topics import Channel, Topics
from broker.errors import LedgerError
from broker.ledger.enqueue import CommandRequest
from broker.ledger.failures import RefusedByDatabase
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from broker.server.server import Server
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import inbound_on, result
from tests.support.postgresql import PostgreSQL
from tests.unit.broker.server.test_server import RememberingWire

# What a database does that cannot store a value: here it refuses one digest, and the status of one version.
_SQLITE = """
CREATE TRIGGER refuse_result BEFORE UPDATE ON commands WHEN NEW.digest = 'evil'
    BEGIN SELECT RAISE(ABORT, 'not in this encoding'); END;
CREATE TRIGGER refuse_status BEFORE UPDATE ON agents WHEN NEW.status LIKE '%evil%'
    BEGIN SELECT RAISE(ABORT, 'not in this encoding'); END;
"""
_CONSTRAINTS = """
ALTER TABLE commands ADD CHECK (digest <> 'evil');
ALTER TABLE agents ADD CHECK (status NOT LIKE '%evil%');
"""
_TRIGGERS = """
CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'not in this encoding'; END $$ LANGUAGE plpgsql;
CREATE TRIGGER refuse BEFORE UPDATE ON commands FOR EACH ROW WHEN (NEW.digest = 'evil') EXECUTE FUNCTION refuse();
CREATE TRIGGER refuse BEFORE UPDATE ON agents FOR EACH ROW WHEN (NEW.status LIKE '%evil%') EXECUTE FUNCTION refuse();
"""
_DATABASES = {"SQLite": _SQLITE, "PostgreSQL, constraint": _CONSTRAINTS, "PostgreSQL, trigger": _TRIGGERS}


@pytest.fixture(params=_DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path}/ledger.db"
    postgresql: PostgreSQL = request.getfixturevalue("postgresql")
    return postgresql.new_database()


@pytest.fixture
def ledger(url: str, request: pytest.FixtureRequest) -> Iterator[Ledger]:
    with open_database(url) as database:
        with database.transaction() as connection:
            cursor = connection.connection.cursor()
            script = _DATABASES[request.node.callspec.params["url"]]
            (cursor.executescript if database.is_sqlite else cursor.execute)(script)
        yield Ledger(database, now=TurnedClock().now)


@pytest.fixture
def wire() -> RememberingWire:
    return RememberingWire()


@pytest.fixture
def server(ledger: Ledger, wire: RememberingWire) -> Server:
    return Server(ledger, wire, Topics())


def send(ledger: Ledger, agent: str) -> Command:
    return ledger.add_command(agent, CommandRequest("restart-agent", {}, Origin("me", "test")))


def evil_result(command: Command, message: str = "Done.") -> Any:
    return replace(result(command.id), digest="evil", message=message)


def acm(url: str, *words: str) -> Any:
    return CliRunner().invoke(app, words, env={"ACM_LEDGER": url, "COLUMNS": "200"}, catch_exceptions=False)


def test_result_that_the_database_refuses_is_kept_and_stops_nothing(
    url: str, server: Server, ledger: Ledger, wire: RememberingWire
) -> None:
    first, evil, last, other = (send(ledger, name) for name in ("web-01", "web-01", "web-01", "web-02"))
    server.step()
    frame = encode([result(first.id), evil_result(evil, "line → 日本\0"), result(last.id)])
    for _ in range(2):  # the agent sends it until it is acked
        server.receive(
            [inbound_on("acm/web-01/feedback", frame), inbound_on("acm/web-02/feedback", encode([result(other.id)]))]
        )
    completed = [ledger.get(it.id).state is CommandState.COMPLETED for it in (first, evil, last, other)]
    assert completed == [True, False, True, True]
    acked = {ack.command_id for frame in wire.on("ack") for ack in decode_acks(frame)}
    assert acked == {first.id, last.id, other.id}
    (kept,) = ledger.refused_messages()
    assert (kept.agent, kept.channel, kept.command_id) == ("web-01", Channel.FEEDBACK, evil.id)
    assert json.loads(kept.content)["message"] == "line → 日本\0"
    listed = acm(url, "ledger", "refused")
    assert listed.exit_code == 0
    assert evil.id in listed.stdout
    (document,) = json.loads(acm(url, "ledger", "refused", "--json").stdout)
    assert (document["agent"], document["content"]) == ("web-01", kept.content)


def test_status_that_the_database_refuses_is_kept_and_stops_no_other(server: Server, ledger: Ledger) -> None:
    statuses = [Status(name, True, version, "i", "b", "g") for name, version in (("a", "1"), ("b", "evil"), ("c", "1"))]
    server.receive([inbound_on(f"acm/{it.agent}/status", encode([it]), retained=True) for it in statuses])
    assert [row.name for row in ledger.agents() if row.status] == ["a", "c"]
    (kept,) = ledger.refused_messages()
    assert (kept.agent, kept.channel, kept.command_id) == ("b", Channel.STATUS, None)
    assert "evil" in kept.content


def test_few_refused_messages_are_kept_of_an_agent_and_of_all(server: Server, ledger: Ledger) -> None:
    for name in ("web-01", "web-02"):
        commands = [send(ledger, name) for _ in range(25)]
        server.step()
        server.receive([inbound_on(f"acm/{name}/feedback", encode([evil_result(it, "x" * 2000) for it in commands]))])
    kept = ledger.refused_messages()
    assert [[it.agent for it in kept].count(name) for name in ("web-01", "web-02")] == [10, 10]
    long = replace(evil_result(send(ledger, "web-01")), data={"y": "y" * 30_000})
    server.receive([inbound_on("acm/web-01/feedback", encode([long]))])
    assert max(len(it.content) for it in ledger.refused_messages()) <= 16_384


def test_value_that_no_database_takes_is_refused_by_a_sentence(ledger: Ledger) -> None:
    for text in ("\ud800", "caf\udce9"):
        with raises_code(RefusedByDatabase, "refused_by_database"):
            ledger.get(text)
    with raises_code(RefusedByDatabase, "refused_by_database"):
        ledger.commands(limit=2**80)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_database_that_is_not_in_utf_8_is_refused(postgresql: PostgreSQL, encoding: str) -> None:
    name = f"encoded_{encoding.lower()}"
    with postgresql.connect("postgres") as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'".encode()
        )
    for read_only in (False, True):
        with raises_code(LedgerError, "unsupported_encoding") as refused:
            open_database(postgresql.url(name), read_only=read_only)
        assert encoding in str(refused.value)
    with postgresql.connect(name) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_message_is_kept_while_the_queue_of_notifications_is_full(postgresql: PostgreSQL) -> None:
    """PostgreSQL then fails each COMMIT with the error of a value that is too long, as this trigger does."""
    fail = "BEGIN RAISE 'too many notifications' USING ERRCODE = 'program_limit_exceeded'; END"
    fails = "AFTER UPDATE ON commands DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()"
    with open_database(postgresql.new_database()) as database:
        ledger = Ledger(database, now=TurnedClock().now)
        command = ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
        with database.transaction() as connection:
            connection.exec_driver_sql(f"CREATE FUNCTION fail() RETURNS trigger AS $${fail}$$ LANGUAGE plpgsql")
            connection.exec_driver_sql(f"CREATE CONSTRAINT TRIGGER fail {fails}")
        payload = encode([result(command.id)])
        with raises_code(LedgerError, "database_failed"):
            Server(ledger, RememberingWire(), Topics()).receive([inbound_on("acm/web-01/feedback", payload)])
        assert ledger.refused_messages() == []
