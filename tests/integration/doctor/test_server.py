"""The doctor's findings on the server of a ledger."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.app.factories import open_database
from broker.contract.messages import Origin
from broker.doctor import clock, server
from broker.doctor.clock import check_clock
from broker.doctor.server import check_server
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.server_lock import ServerLock
from tests.support.findings import codes, only

HOLDER = """
import sys
from datetime import UTC, datetime
from broker.app.factories import open_database
from broker.ledger.server_lock import ServerLock
with open_database(sys.argv[1]) as database:
    lock = ServerLock(database, "acm-server", lambda: datetime.now(UTC))
    lock.acquire()
    print("held", flush=True)
    sys.stdin.read()
"""


def now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def server_on(url: str) -> "Iterator[subprocess.Popen[str]]":
    """Run a process that holds the lock of a server."""
    argv = [sys.executable, "-c", HOLDER, url]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def url(ledger_url: str) -> str:
    open_database(ledger_url).close()
    return ledger_url


def test_ledger_without_a_server(url: str) -> None:
    only(check_server(url, "acm-server"), server.NOT_RUNNING, "No server runs", "acm-server")


def test_server_that_runs_is_named(url: str) -> None:
    with server_on(url) as process:
        (found,) = check_server(url, "acm-server")
    assert found.code == "ok"
    assert f"process {process.pid}" in found.found


def test_server_with_another_client_id(url: str) -> None:
    with server_on(url):
        only(check_server(url, "acm-other"), server.OTHER_CLIENT_ID, "acm-server", "acm-other")


def test_server_that_a_signal_has_stopped(url: str) -> None:
    with server_on(url) as process:
        process.send_signal(signal.SIGSTOP)
        only(check_server(url, "acm-server"), server.STOPPED, f"kill -CONT {process.pid}")
        process.send_signal(signal.SIGCONT)


def test_commands_that_no_server_sends(url: str) -> None:
    request = CommandRequest("restart-agent", {}, Origin("test", "test"))
    with open_database(url) as database:
        oldest = Ledger(database, now=lambda: now() - timedelta(minutes=10)).add_command("web-01", request)
        Ledger(database, now=now).add_command("web-01", request)
        lock = ServerLock(database, "acm-server", now)
        lock.acquire()
        only(check_server(url, "acm-server"), server.COMMANDS_WAIT, "1 command waited", f"acm explain {oldest.id}")
        lock.release()


def test_server_without_a_connection_to_the_broker(url: str) -> None:
    with open_database(url) as database:
        lock = ServerLock(database, "acm-server", now)
        lock.acquire()
        lock.note_connection("No connection to 127.0.0.1:1883: bad user name or password.")
        only(check_server(url, "acm-server"), server.NOT_CONNECTED, "not connected since", "bad user name or password.")
        lock.note_connection(None)
        (found,) = check_server(url, "acm-server")
        assert (found.code, found.found.endswith("and is connected.")) == ("ok", True)
        lock.release()


def test_clock_that_agrees_with_the_ledger(url: str) -> None:
    assert codes(check_clock(url, now)) == []


def test_clock_that_differs_from_that_of_the_database(postgresql: object, tmp_path: Path) -> None:
    url = postgresql.new_database()  # type: ignore[attr-defined]
    open_database(url).close()
    found = check_clock(url, lambda: now() + timedelta(hours=1))
    only(found, clock.DIFFER, "3600 s ahead", "timedatectl")


def test_clock_that_was_set_back(url: str) -> None:
    with open_database(url) as database:
        request = CommandRequest("restart-agent", {}, Origin("test", "test"))
        Ledger(database, now=lambda: now() + timedelta(days=2)).add_command("web-01", request)
    only(check_clock(url, now), clock.BEHIND, "the ledger has a time of", "timedatectl")
