"""A ledger whose file system or database fails: one sentence with its place, and nothing is changed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.app.factories import open_database, open_ledger
from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
from tests.support.brokers import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.small_disks import filled, mounted
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


def acm(url: str, *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = [*before, sys.executable, "-m", "broker", *words, "--ledger", url]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("ledger.db")}


def assert_one_sentence(done: subprocess.CompletedProcess[str], place: Path, *words: str, code: int = 1) -> None:
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith(("acm: ", '{"timestamp":')), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(place) in done.stderr
    assert [word for word in words if word not in done.stderr] == []


@pytest.mark.parametrize("words", [("agents",), ("send", "web-01", "restart-agent")])
def test_full_disk_leaves_the_ledger_as_it_is(tmp_path: Path, words: tuple[str, ...]) -> None:
    with mounted(tmp_path / "mnt", "4m") as directory:
        url = f"sqlite:///{directory}/ledger.db"
        with open_ledger(url) as ledger:
            ledger.add_command("web-01", REQUEST)
        before = content(directory)
        filler = filled(directory)
        assert_one_sentence(acm(url, *words), directory / "ledger.db", "make room")
        assert content(directory) == before
        filler.unlink()
        assert acm(url, "agents").returncode == 0
        with open_ledger(url) as ledger:
            assert len(ledger.commands()) == 1


def test_quota_that_ends_is_a_full_disk(tmp_path: Path) -> None:
    """SQLite calls EDQUOT an I/O error, and the free space of the file system does not show it."""
    file = tmp_path / "ledger.db"
    url = f"sqlite:///{file}"
    with open_ledger(url) as ledger:
        ledger.add_command("web-01", REQUEST)
    before = content(tmp_path)
    faults = [word for call in ("pwrite64", "fallocate") for word in ("-e", f"inject={call}:error=EDQUOT")]
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64,fallocate", *faults)
    assert_one_sentence(acm(url, "send", "web-01", "restart-agent", before=strace), file, "make room", "quota")
    assert content(tmp_path) == before
    assert acm(url, "send", "web-01", "restart-agent").returncode == 0


def test_read_only_file_system_leaves_the_ledger_as_it_is(tmp_path: Path) -> None:
    with mounted(tmp_path / "mnt", "4m") as directory:
        url = f"sqlite:///{directory}/ledger.db"
        with open_ledger(url) as ledger:
            ledger.add_command("web-01", REQUEST)
        before = content(directory)
        subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
        for words in (["agents"], ["send", "web-01", "restart-agent"]):
            assert_one_sentence(acm(url, *words), directory / "ledger.db", "cannot be written")
        assert content(directory) == before


@pytest.mark.parametrize(
    "fault",
    ["pread64:error=EIO:when=1", "openat:error=EMFILE:when=1", "openat:error=EIO:when=2", "pread64:error=EIO:when=3"],
)
def test_failing_call_at_the_opening_leaves_the_ledger_as_it_is(tmp_path: Path, fault: str) -> None:
    file = tmp_path / "ledger.db"
    url = f"sqlite:///{file}"
    with open_ledger(url) as ledger:
        ledger.add_command("web-01", REQUEST)
    before = content(tmp_path)
    call = fault.partition(":")[0]
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", str(file), "-e", f"trace={call}", "-e", f"inject={fault}")
    done = acm(url, "agents", before=strace)
    assert done.returncode in (0, 1), done.stderr
    if done.returncode == 1:
        assert_one_sentence(done, file)
    assert content(tmp_path) == before
    assert acm(url, "agents").returncode == 0


def test_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.write_text("This is not a database. " * 100)
    assert_one_sentence(acm(f"sqlite:///{file}", "agents"), file, "not a SQLite database", code=3)
    assert_one_sentence(acm(f"sqlite:///{tmp_path}", "agents"), tmp_path, "is a directory", code=3)


@pytest.mark.parametrize("words", [("agents",), ("send", "web-01", "restart-agent")])
def test_directory_of_another_user_is_one_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")  # needs root
    (tmp_path / "private").mkdir(0o700)
    file = tmp_path / "private" / "ledger.db"
    assert_one_sentence(acm(f"sqlite:///{file}", *words, before=nobody), file, "cannot be opened")


def test_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    environment = {**os.environ, "ACM_LEDGER": f"postgresql://me:hunter2@127.0.0.1:{free_port()}/acm"}
    argv = [sys.executable, "-m", "broker", "agents"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "cannot be reached" in done.stderr
    assert "hunter2" not in done.stderr


@contextmanager
def held_sqlite_lock(url: str) -> Iterator[None]:
    with open_database(url) as database, database.transaction():
        yield


@contextmanager
def held_tables(postgresql: PostgreSQL, url: str) -> Iterator[None]:
    with postgresql.connect(url) as connection, connection.transaction():
        connection.execute("LOCK TABLE agents, commands IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def running_server(url: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that has no broker, and has begun its first look at the ledger."""
    argv = [sys.executable, "-m", "broker", "server", "--broker", f"mqtt://127.0.0.1:{free_port()}", "--ledger", url]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_for(lambda: b"server_started" in log.read_bytes(), "the server")
        yield process
    finally:
        process.kill()
        process.wait(20)


def test_server_ends_while_another_process_holds_the_lock(
    ledger_url: str, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    open_database(ledger_url).close()
    is_sqlite = ledger_url.startswith("sqlite")
    with running_server(ledger_url, tmp_path / "log") as server:
        held: Any = held_sqlite_lock(ledger_url) if is_sqlite else held_tables(postgresql, ledger_url)
        with held:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0, "the lock is held until it has ended"


def test_command_gives_up_on_a_table_that_stays_locked(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    open_database(url).close()
    with held_tables(postgresql, url):
        done = acm(url, "agents")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "pg_stat_activity" in done.stderr


def test_connections_that_the_database_has_ended_are_made_again(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    with open_ledger(url) as ledger:
        ledger.add_command("web-01", REQUEST)
        postgresql.end_connections(url)
        assert [row.agent for row in ledger.commands()] == ["web-01"]


def test_process_ends_although_the_database_does_not_answer() -> None:
    instance = PostgreSQL()
    try:
        url = instance.new_database()
        program = (
            "import signal, sys, threading\n"
            "from broker.app.factories import open_ledger\n"
            "with open_ledger(sys.argv[1]) as ledger:\n"
            "    signal.signal(signal.SIGTERM, lambda *_: ledger.database.stop_waiting())\n"
            "    print('open', flush=True)\n"
            "    sys.stdin.readline()\n"
            "    try:\n"
            "        print('asking', flush=True)\n"
            "        ledger.agents()\n"
            "    except Exception as error:\n"
            "        print(type(error).__name__, flush=True)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program, url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        try:
            with instance.stopped():
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "asking\n"
                process.send_signal(signal.SIGTERM)
                assert process.stdout.readline() == "DatabaseUnavailable\n"
                assert process.wait(30) == 0
        finally:
            process.kill()
            process.communicate()
    finally:
        instance.remove()
