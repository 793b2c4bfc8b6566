"""Signals to each program while PostgreSQL keeps a lock, or answers nothing at all, also to a pooler that answers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from psycopg import sql

from broker.app.factories import open_database
from broker.pki.authority import CertificateAuthority, create_authority
from broker.signing.key_store import create_signing_keys
from tests.support.brokers import TestBroker, free_port
from tests.support.postgresql import PgBouncer, PostgreSQL
from tests.support.waiting import holds_within, wait_for

ROOT = Path(__file__).resolve().parents[2]
_ASKS_WITHIN_S = 5.0  # each program asks at least every two seconds
FAULTS = ["a lock", "no answer", "no answer to a pooler"]


@pytest.fixture(scope="module")
def instance() -> Iterator[PostgreSQL]:
    """An instance of its own: it is stopped."""
    own = PostgreSQL()
    yield own
    own.remove()


@pytest.fixture(scope="module")
def pooler(instance: PostgreSQL) -> Iterator[PgBouncer]:
    own = PgBouncer(instance)
    yield own
    own.remove()


@pytest.fixture
def ledger(instance: PostgreSQL, pooler: PgBouncer, fault: str) -> "Iterator[Ledger]":
    made = Ledger(instance, pooler if "pooler" in fault else None)
    yield made
    open_database(made.url).close()  # what ended has harmed neither the database nor the pooler


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an authority, with the files of an enrolment server."""
    directory = tmp_path_factory.mktemp("site") / "ca"
    create_authority(directory, "test", datetime.now(UTC))
    create_signing_keys(directory / "signing", datetime.now(UTC))
    made = CertificateAuthority(directory, now=lambda: datetime.now(UTC))
    made.write_client_certificate("localhost", directory, "server")
    return directory


class Ledger:
    """A ledger in PostgreSQL, which can keep its users waiting."""

    def __init__(self, instance: PostgreSQL, pooler: PgBouncer | None) -> None:
        self._instance, self._pooler = instance, pooler
        self.url = pooler.pooled(instance.new_database()) if pooler else instance.new_database()
        open_database(self.url).close()

    @contextmanager
    def hanging(self, fault: str) -> Iterator[None]:
        with self._locked() if fault == "a lock" else self._instance.stopped():
            yield

    @contextmanager
    def hanging_with_a_question(self, client: int, fault: str) -> Iterator[None]:
        """Hang while the process with this id waits for an answer.

        What was stopped in the middle of an answer has read the question, so that nothing shows that it waits for one:
        then it is stopped again.
        """
        for _ in range(20):
            with self.hanging(fault):
                if holds_within(_ASKS_WITHIN_S, lambda: self.keeps_waiting(client, fault)):
                    yield
                    return
        pytest.fail("the program has asked the database nothing")

    def keeps_waiting(self, client: int, fault: str) -> bool:
        """Whether the process with this id has asked something, itself or by the pooler."""
        if self._pooler is not None:
            client = self._pooler.process.pid
        return self._has_waiting_lock() if fault == "a lock" else self._has_not_read(client)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._instance.connect(self.url) as connection, connection.transaction():
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            names = sql.SQL(", ").join(sql.Identifier(table) for (table,) in tables)
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
            yield

    def _has_waiting_lock(self) -> bool:
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        with self._instance.connect(self.url) as connection:
            return connection.execute(query).fetchone() is not None

    def _has_not_read(self, client: int) -> bool:
        """Whether a socket of the instance has bytes of the client that it has not read (proc(5), /proc/net/tcp)."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = set(open_files(client))
        of_client = {local for _, local, _, _, _, _, _, _, _, inode, *_ in rows if f"socket:[{inode}]" in sockets}
        return any(remote in of_client and not queues.endswith(":00000000") for _, _, remote, _, queues, *_ in rows)


def open_files(process_id: int) -> Iterator[str]:
    """What the descriptors of the process name; one that it closes meanwhile is passed over."""
    for path in Path(f"/proc/{process_id}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield os.readlink(path)


@contextmanager
def running(words: list[str], url: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "broker", *words],
            cwd=ROOT,
            env={**os.environ, "ACM_LEDGER": url},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def words_of(program: str, authority: Path, broker: TestBroker) -> list[str]:
    files = [f"--ca={authority}", f"--certificate={authority}/server.crt", f"--key={authority}/server.key"]
    files.append(f"--listen=127.0.0.1:{free_port()}")
    return {
        "server": ["server", "--broker", broker.url],
        "enroll-server": ["enroll-server", "--broker", "mqtt://127.0.0.1:1", *files],
        "send": ["send", "web-01", "restart-agent", "--allow-unknown", "--wait", "100"],
    }[program]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("program", "number", "code"),
    [
        ("server", signal.SIGTERM, 0),
        ("enroll-server", signal.SIGTERM, 0),
        ("send", signal.SIGTERM, 143),
        ("send", signal.SIGINT, 130),
    ],
)
def test_program_that_works_ends(
    ledger: Ledger,
    authority: Path,
    broker: TestBroker,
    tmp_path: Path,
    program: str,
    number: int,
    code: int,
    fault: str,
) -> None:
    log = tmp_path / "log"
    with running(words_of(program, authority, broker), ledger.url, log) as process:
        wait_for(lambda: any(word in log.read_text() for word in ("server_started", "Waiting for")), "the program")
        with ledger.hanging_with_a_question(process.pid, fault):
            process.send_signal(number)
            assert process.wait(30) == code, log.read_text()
    assert [word for word in ("query canc", "not terminated", "Traceback") if word in log.read_text()] == []


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("program", "number", "code"),
    [
        ("server", signal.SIGTERM, 0),
        ("enroll-server", signal.SIGTERM, 0),
        ("send", signal.SIGTERM, -signal.SIGTERM),
        ("send", signal.SIGINT, 130),
    ],
)
def test_program_that_starts_ends(
    ledger: Ledger,
    authority: Path,
    broker: TestBroker,
    tmp_path: Path,
    program: str,
    number: int,
    code: int,
    fault: str,
) -> None:
    log = tmp_path / "log"
    with ledger.hanging(fault), running(words_of(program, authority, broker), ledger.url, log) as process:
        wait_for(lambda: ledger.keeps_waiting(process.pid, fault), "a question to the database")
        process.send_signal(number)
        assert process.wait(30) == code, log.read_text()
    assert "Traceback" not in log.read_text()
