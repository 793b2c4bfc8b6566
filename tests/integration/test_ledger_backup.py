"""Backups of a ledger in SQLite, their restoration, and files that change under a running program."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.app.factories import open_database, open_ledger
from broker.contract.messages import Origin
from broker.contract.states import ErrorCode
from broker.errors import LedgerError
from broker.ledger.backup import back_up, check, restore
from broker.ledger.enqueue import CommandRequest
from broker.ledger.location import ledger_url
from broker.ledger.tables import CommandState
from broker.pki.authority import CertificateAuthority, create_authority
from broker.signing.key_store import create_signing_keys
from tests.support.brokers import free_port
from tests.support.errors import raises_code
from tests.support.makers import NOW
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


def acm(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "broker", *words, "--ledger", f"sqlite:///{file}"]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100)


def backed_up(file: Path, target: Path, *, replace: bool = False) -> None:
    back_up(ledger_url(f"sqlite:///{file}"), target, replace=replace)


def checked(file: Path) -> None:
    check(ledger_url(f"sqlite:///{file}"))


def restored(file: Path, source: Path) -> None:
    def settle(url: str) -> int:
        with open_ledger(url) as ledger:
            return ledger.settle_restored()

    restore(ledger_url(f"sqlite:///{file}"), source, settle, NOW)


def add(file: Path, number: int = 1) -> None:
    with open_ledger(f"sqlite:///{file}") as ledger:
        for _ in range(number):
            ledger.add_command("web-01", REQUEST)


def commands(file: Path) -> int:
    with open_ledger(f"sqlite:///{file}") as ledger:
        return len(ledger.commands())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger with three commands."""
    made = tmp_path / "ledger.db"
    add(made, 3)
    return made


@contextmanager
def running(words: list[str], file: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    argv = [sys.executable, "-m", "broker", *words, "--ledger", f"sqlite:///{file}"]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_for(lambda: "_started" in log.read_text() or process.poll() is not None, "the program")
        yield process
    finally:
        process.kill()
        process.wait(20)


SERVER = ["server", "--broker", f"mqtt://127.0.0.1:{free_port()}"]


def kept_beside(file: Path) -> Path:
    return min(file.parent.glob("ledger.db.before-*"))


def fill(file: Path, size: int) -> None:
    blob = file.with_name("blob")
    blob.write_bytes(os.urandom(size))
    with open_ledger(f"sqlite:///{file}") as ledger:
        ledger.blobs.put(blob)


def damage(file: Path) -> None:
    """Copy an old state over a ledger whose server was killed: its write-ahead log is taken for that of the copy."""
    old, log = file.with_name("old.db"), Path(f"{file}-wal")
    backed_up(file, old)
    with closing(sqlite3.connect(file)) as other:
        other.execute("SELECT count(*) FROM commands").fetchone()
        fill(file, 5_000_000)
        add(file, 3)
        left = log.read_bytes()
    old.replace(file)
    log.write_bytes(left)


def test_backup_of_an_open_ledger_has_what_its_log_has(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    with closing(sqlite3.connect(file)) as other:  # with it, the write-ahead log stays
        assert other.execute("SELECT count(*) FROM commands").fetchone() == (3,)
        add(file)
        shutil.copy(file, tmp_path / "copied.db")
        assert acm(file, "ledger", "backup", str(target)).returncode == 0
    assert commands(tmp_path / "copied.db") == 3, "the log is not in a plain copy, so this test tries something"
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.glob("*backup*")) == ["backup.db"]
    assert commands(target) == 4


def test_backup_beside_writers_is_one_state(file: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom tests.integration.test_ledger_backup import REQUEST, open_ledger\n"
        "with open_ledger(sys.argv[1]) as ledger:\n"
        "    while True:\n"
        "        ledger.add_operation([f'web-{n}' for n in range(20)], 'web-*', REQUEST)\n"
        "        print(flush=True)\n"
    )
    url = f"sqlite:///{file}"
    writer = subprocess.Popen([sys.executable, "-c", program, url], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert writer.stdout
        writer.stdout.readline()
        for number in range(3):
            target = tmp_path / f"backup-{number}.db"
            backed_up(file, target)
            checked(target)
            with open_ledger(f"sqlite:///{target}") as ledger:
                for operation in ledger.operations.newest(1000):
                    assert ledger.operations.progress(operation.id).unwritten == 0
    finally:
        writer.kill()
        writer.communicate()


def test_backup_replaces_nothing_without_being_told(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    target.write_text("something else")
    with raises_code(LedgerError, "file_exists"):
        backed_up(file, target)
    assert target.read_text() == "something else"
    backed_up(file, target, replace=True)
    assert commands(target) == 3
    for own in (file, Path(f"{file}-wal")):
        with raises_code(LedgerError, "backup_onto_ledger"):
            backed_up(file, own, replace=True)
    assert commands(file) == 3


@pytest.mark.parametrize("words", [("backup", "x.db"), ("restore", "x.db"), ("check",)])
def test_ledger_in_postgresql_has_tools_of_its_own(postgresql: PostgreSQL, words: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "broker", "ledger", *words, "--ledger", postgresql.url("postgres")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr.count("\n"), "`pg_" in done.stderr) == (1, 1, True), done.stderr


def test_damaged_ledger_is_neither_backed_up_nor_served(file: Path, tmp_path: Path) -> None:
    damage(file)
    with raises_code(LedgerError, "ledger_damaged"):
        checked(file)
    with raises_code(LedgerError, "ledger_damaged"):
        backed_up(file, tmp_path / "backup.db")
    assert list(tmp_path.glob("*backup*")) == []
    with running(SERVER, file, tmp_path / "log") as server:
        assert server.wait(30) == 1
        assert "is damaged" in (tmp_path / "log").read_text()


def test_restored_ledger_is_the_backup_with_nothing_open(file: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    assert acm(file, "ledger", "backup", str(backup)).returncode == 0
    with running(SERVER, file, tmp_path / "log") as server:
        add(file, 4)
        server.kill()  # the write-ahead log stays
        server.wait(20)
    assert acm(file, "ledger", "restore", str(backup)).returncode == 0
    with open_ledger(f"sqlite:///{file}") as ledger:
        rows = ledger.commands()
        assert [row.state for row in rows] == [CommandState.COMPLETED] * 3
        assert {(row.result or {})["code"] for row in rows} == {ErrorCode.INTERRUPTED}
    kept = kept_beside(file)
    assert (commands(kept), file.stat().st_mode & 0o777) == (7, 0o600)
    with running(SERVER, file, tmp_path / "log"):
        assert "server_started" in (tmp_path / "log").read_text()


def test_damaged_and_missing_ledgers_are_restored(file: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    backed_up(file, backup)
    damage(file)
    damaged = file.read_bytes()
    restored(file, backup)
    kept = kept_beside(file)
    assert (commands(file), kept.read_bytes()) == (3, damaged)
    file.unlink()
    Path(f"{file}-wal").write_bytes(b"of a ledger that is gone")
    kept.unlink()
    restored(file, backup)
    assert commands(file) == 3


def test_ledger_in_use_is_not_restored(file: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    backed_up(file, backup)
    add(file)
    with running(SERVER, file, tmp_path / "log"), raises_code(LedgerError, "server_running"):
        restored(file, backup)
    with open_database(f"sqlite:///{file}") as other, other.reading():
        done = acm(file, "ledger", "restore", str(backup))
    assert (done.returncode, done.stderr.count("\n"), "enroll-server" in done.stderr) == (1, 1, True), done.stderr
    assert (commands(file), list(tmp_path.glob("ledger.db.before-*"))) == (4, [])


def test_what_is_no_whole_backup_is_not_restored(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with raises_code(LedgerError, "ledger_not_found"):
        restored(file, other)
    with raises_code(LedgerError, "not_a_backup"):
        restored(file, file)
    other.write_text("no database " * 1000)
    with raises_code(LedgerError, "not_a_ledger"):
        restored(file, other)
    other.unlink()
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    with raises_code(LedgerError, "not_a_ledger"):
        restored(file, other)
    other.unlink()
    add(other)
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("UPDATE schema_version SET version = version + 1")
    with raises_code(LedgerError, "newer_schema"):
        restored(file, other)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("SELECT count(*) FROM commands").fetchone()
        assert Path(f"{other}-wal").exists()
        with raises_code(LedgerError, "not_a_backup"):
            restored(file, other)
    assert (commands(file), list(tmp_path.glob("ledger.db.before-*"))) == (3, [])


@pytest.mark.parametrize(
    ("program", "how"),
    [("server", "unlinked"), ("server", "replaced"), ("enroll", "replaced"), ("api", "replaced")],
)
def test_server_ends_when_its_ledger_was_taken_away(file: Path, tmp_path: Path, program: str, how: str) -> None:
    log = tmp_path / "log"
    words = {"server": SERVER, "api": ["api", "--listen", f"127.0.0.1:{free_port()}"]}
    with running(words.get(program) or enrolment_server(tmp_path / "ca"), file, log) as server:
        assert server.poll() is None, log.read_text()
        if how == "replaced":
            shutil.copy(file, tmp_path / "copied.db")
            (tmp_path / "copied.db").replace(file)
        else:
            file.unlink()
        assert server.wait(30) == 1
        assert "was deleted or replaced" in log.read_text().splitlines()[-1]


def enrolment_server(ca: Path) -> list[str]:
    now = datetime.now(UTC)
    create_authority(ca, "test", now)
    create_signing_keys(ca / "signing", now)
    CertificateAuthority(ca, now=lambda: now).write_client_certificate("localhost", ca, "server")
    words = ["enroll-server", "--ca", str(ca), "--broker", "mqtt://127.0.0.1:1", "--listen", f"127.0.0.1:{free_port()}"]
    return [*words, "--certificate", f"{ca}/server.crt", "--key", f"{ca}/server.key"]


def test_check_of_a_large_ledger_ends_at_its_limit(file: Path) -> None:
    fill(file, 5_000_000)
    with open_ledger(f"sqlite:///{file}") as ledger:
        ledger.database.refuse_damaged(0.0)
