"""What another process commits to the ledger is noticed without asking for it: by a wait, and by an idle server."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.app import server as server_module
from broker.app.config import ServerConfig
from broker.app.factories import open_database, open_ledger
from broker.app.ledger_watch import LedgerWatch
from broker.app.server import ServerProcess
from broker.contract.codec import decode_commands
from broker.errors import LedgerError
from broker.ledger import changes as changes_module
from broker.ledger.changes import Changes
from broker.ledger.clock import LedgerClock
from broker.mqtt.connection import MqttConnection
from tests.support.brokers import TestBroker
from tests.support.makers import NOW
from tests.support.postgresql import PostgreSQL, shared_pooler
from tests.support.threads import on_a_thread
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
NEVER_S = 1e6


def send_from_another_process(url: str) -> None:
    words = ["send", "web-01", "restart-agent", "--allow-unknown", "--ledger", url]
    subprocess.run([sys.executable, "-m", "broker", *words], cwd=ROOT, check=True, timeout=100, capture_output=True)


@pytest.fixture
def nothing_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let looks follow events only, so that a change without one is not noticed."""
    monkeypatch.setattr(changes_module, "_SLOW_LOOK_S", NEVER_S)
    monkeypatch.setattr(server_module, "_WORK_EVERY_S", NEVER_S)


@pytest.mark.usefixtures("nothing_by_time")
def test_commit_of_another_process_ends_a_wait(ledger_url: str) -> None:
    with open_database(ledger_url) as database, database.changes() as changes:
        assert not changes.look()
        send_from_another_process(ledger_url)
        assert changes.wait(60)


@pytest.mark.usefixtures("nothing_by_time")
def test_commit_to_a_linked_ledger_ends_a_wait(tmp_path: Path) -> None:
    (tmp_path / "of").mkdir()
    url = f"sqlite:///{tmp_path}/of/ledger.db"
    open_database(url).close()
    (tmp_path / "link.db").symlink_to(tmp_path / "of" / "ledger.db")
    with open_database(f"sqlite:///{tmp_path}/link.db") as database, database.changes() as changes:
        assert changes.fileno() is not None
        send_from_another_process(url)
        assert changes.wait(60)


def test_commit_is_seen_although_the_kernel_watches_no_more_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path) -> None:
        raise OSError("Too many open files")

    monkeypatch.setattr(changes_module, "FileEvents", refuse)
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_database(url) as database, database.changes() as changes:
        assert changes.fileno() is None
        assert not changes.look()
        send_from_another_process(url)
        assert changes.wait(60)


def test_commit_is_seen_behind_a_pooler(postgresql: PostgreSQL) -> None:
    url = shared_pooler().pooled(postgresql.new_database())
    with open_database(url) as database, database.changes() as changes:
        assert changes.fileno() is None
        assert wait_for(lambda: not changes.wait(0.1), "a look that finds nothing new")
        send_from_another_process(url)
        assert changes.wait(60)


@pytest.mark.usefixtures("nothing_by_time")
def test_lost_connection_is_replaced(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "_CONNECT_AGAIN_S", 0.0)
    url = postgresql.new_database()
    with open_database(url) as database, database.changes() as changes:
        postgresql.end_connections(url)
        assert changes.wait(60)  # it may have changed since
        assert changes.fileno() is None
        assert changes.look()
        assert changes.fileno() is not None
        send_from_another_process(url)
        assert changes.wait(60)


def test_connection_is_tried_again_while_the_database_takes_none(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "_CONNECT_AGAIN_S", 0.0)
    url = postgresql.new_database()
    name = url.rpartition("/")[2]
    with open_database(url) as database, database.changes() as changes:
        with postgresql.connect("postgres") as other:
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            postgresql.end_connections(url)
            assert changes.wait(60)  # the connection is lost
            assert changes.look()
            with database.changes() as later:
                assert later.look()
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        wait_for(lambda: changes.look() and changes.fileno() is not None, "the connection")


@contextmanager
def running(broker: TestBroker, url: str, directory: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(ServerConfig(broker=broker.url, ledger=url, ca=str(directory)))
    with on_a_thread(process):
        yield process


@contextmanager
def counted_looks(process: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Yield the looks of the loop, while it has the chance of many."""
    looks: list[bool] = []
    look = process._changes.look
    monkeypatch.setattr(process._changes, "look", lambda: looks.append(look()) or looks[-1])
    yield looks


@pytest.mark.usefixtures("nothing_by_time")
def test_idle_server_is_woken(broker: TestBroker, ledger_url: str, tmp_path: Path) -> None:
    with (
        MqttConnection(broker.url, "web-01", subscriptions=["acm/web-01/command"]) as agent,
        running(broker, ledger_url, tmp_path) as process,
    ):
        assert agent.wait_connected(20)
        wait_for(lambda: process._connection.wait_connected(0) and process._work_at > NEVER_S / 2, "its first turn")
        send_from_another_process(ledger_url)
        (delivery,) = wait_for(lambda: agent.drain(0.1), "the command")
        (command,) = decode_commands(delivery.payload, received_at=NOW, new_id=lambda: "new")
        assert command.type == "restart-agent"


def test_server_that_is_not_woken_looks_by_itself(
    broker: TestBroker, ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LedgerWatch, "arm", lambda _: None)
    monkeypatch.setattr(changes_module, "_SLOW_LOOK_S", NEVER_S)
    with (
        MqttConnection(broker.url, "web-01", subscriptions=["acm/web-01/command"]) as agent,
        running(broker, ledger_url, tmp_path) as process,
    ):
        assert agent.wait_connected(20)
        wait_for(lambda: process._connection.wait_connected(0), "the connection")
        send_from_another_process(ledger_url)
        wait_for(lambda: agent.drain(0.1), "the command")


def test_idle_server_asks_and_writes_nothing(
    broker: TestBroker, ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "_SLOW_LOOK_S", 0.01)
    monkeypatch.setattr(server_module, "_WORK_EVERY_S", NEVER_S)
    with running(broker, ledger_url, tmp_path) as process, open_database(ledger_url) as other:
        wait_for(lambda: process._connection.wait_connected(0) and process._work_at > NEVER_S / 2, "its first turn")
        with other.changes() as changes, counted_looks(process, monkeypatch) as looks:
            wait_for(lambda: len(looks) > 5 and not any(looks[-5:]), "rest")
            statements: list[str] = []
            event = ("before_cursor_execute", lambda *call: statements.append(call[2]))
            sa.event.listen(process._database._engine, *event)
            changes.look()
            before = len(looks)
            wait_for(lambda: len(looks) > before + 20, "twenty looks")
            assert statements == []
            assert not changes.look()


def test_database_is_closed_if_its_clock_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(clock: LedgerClock) -> None:
        raise LedgerError("The clock cannot be read.")

    file = tmp_path / "ledger.db"
    with open_ledger(f"sqlite:///{file}"):
        pass
    monkeypatch.setattr(LedgerClock, "warning", property(fail))
    with pytest.raises(LedgerError, match="clock"):
        ServerProcess(ServerConfig(broker="mqtt://127.0.0.1:1", ledger=f"sqlite:///{file}", ca=str(tmp_path)))
    opened = {path.resolve() for path in Path("/proc/self/fd").iterdir() if path.exists()}
    assert file not in opened


def test_database_in_memory_may_always_have_changed() -> None:
    with open_database("sqlite://") as database, database.changes() as changes:
        assert type(changes) is Changes
        assert changes.wait(60)
