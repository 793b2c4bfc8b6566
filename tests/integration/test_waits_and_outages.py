"""Every kind of `--wait` while the ledger's database is restarted, or stays away."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.app.factories import open_ledger
from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))
KINDS = ["one agent", "many agents", "an operation that was sent", "an audit", "an audit to accept"]


@pytest.fixture(scope="module")
def instance() -> Iterator[PostgreSQL]:
    """An instance of its own: these tests end it."""
    own = PostgreSQL(is_durable=True)
    yield own
    own.remove()


@pytest.fixture
def url(instance: PostgreSQL) -> str:
    """A ledger with two agents."""
    if instance.process.poll() is not None:
        instance.start()
    made = instance.new_database()
    with open_ledger(made) as ledger:
        for agent in ("web-01", "web-02"):
            ledger.abandon(ledger.add_command(agent, REQUEST).id)
    return made


class WaitingCall:
    """A call of `acm … --wait`."""

    def __init__(self, url: str, log: Path, process: "subprocess.Popen[bytes]") -> None:
        self._url = url
        self._log = log
        self.process = process

    @property
    def said(self) -> str:
        return self._log.read_text()

    def has_named_it(self) -> bool:
        assert self.process.poll() is None, self.said
        with open_ledger(self._url) as ledger:
            known = [row.command.id for row in ledger.commands()] + [it.id for it in ledger.operations.newest(10)]
        return any(name in self.said for name in known)

    def complete(self) -> None:
        """Complete the open commands of the wait, as a user can."""
        with open_ledger(self._url) as ledger:
            for row in ledger.commands():
                ledger.abandon(row.command.id)


@contextmanager
def waiting_call(url: str, log: Path, kind: str, wait: str) -> Iterator[WaitingCall]:
    """Call `acm … --wait`, and yield it once it has named what it waits for."""
    with open_ledger(url) as ledger:
        operation = ledger.add_operation(["web-01", "web-02"], "web-*", REQUEST).id if "operation" in kind else ""
    words = {
        "one agent": ["send", "web-01", "restart-agent"],
        "many agents": ["send", "web-*", "restart-agent", "--yes"],
        "an operation that was sent": ["operation", "show", operation],
        "an audit": ["audit", "verify", "web-01"],
        "an audit to accept": ["audit", "accept", "web-01"],
    }[kind]
    argv = [sys.executable, "-m", "broker", *words, "--ledger", url, "--wait", wait, "--json"]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=output)
    call = WaitingCall(url, log, process)
    try:
        wait_for(call.has_named_it, "the id on stderr")
        yield call
    finally:
        process.kill()
        process.wait(20)


@pytest.mark.parametrize("kind", KINDS)
def test_restart_of_the_database_is_waited_out(instance: PostgreSQL, url: str, tmp_path: Path, kind: str) -> None:
    with waiting_call(url, tmp_path / "log", kind, "60") as call:
        instance.kill()
        wait_for(lambda: "Waiting for it." in call.said or call.process.poll() is not None, "a word of the outage")
        assert call.process.poll() is None, call.said
        instance.start()
        call.complete()
        assert call.process.wait(60) == 4, call.said


@pytest.mark.parametrize("kind", ["one agent", "many agents", "an audit"])
def test_database_that_stays_away_ends_the_wait_in_time(
    instance: PostgreSQL, url: str, tmp_path: Path, kind: str
) -> None:
    with waiting_call(url, tmp_path / "log", kind, "3") as call:
        instance.kill()
        assert call.process.wait(30) == 5, call.said
        assert "Traceback" not in call.said


@pytest.mark.parametrize("kind", ["one agent", "an operation that was sent"])
def test_database_that_answers_nothing_ends_the_wait_in_time(
    instance: PostgreSQL, url: str, tmp_path: Path, kind: str
) -> None:
    with waiting_call(url, tmp_path / "log", kind, "3") as call, instance.stopped():
        assert call.process.wait(30) == 5, call.said
        assert "Traceback" not in call.said
