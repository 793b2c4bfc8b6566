"""A real PostgreSQL for tests: Debian's, on loopback, with its data in a temporary directory."""

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.brokers import free_port
from tests.support.waiting import wait_for

__all__ = ["PgBouncer", "PostgreSQL", "direct", "ledger_url_in", "shared_instance", "shared_pooler"]

_INSTALLED = Path("/usr/lib/postgresql")
_HELP = (
    "These tests need PostgreSQL and PgBouncer: `apt-get install postgresql pgbouncer` (scripts/postgresql.sh does). "
    "They start instances of their own and leave the machine's alone."
)
_USER = "postgres"  # PostgreSQL refuses to run as root; Debian's package creates this user


@cache
def shared_instance() -> "PostgreSQL":
    """The instance of this process of the tests, started at the first call and removed at its end."""
    instance = PostgreSQL()
    atexit.register(instance.remove)
    return instance


@cache
def shared_pooler() -> "PgBouncer":
    """The pooler in front of the shared instance, as that one."""
    pooler = PgBouncer(shared_instance())
    atexit.register(pooler.remove)
    return pooler


def direct(url: str) -> str:
    """Return the URL of a database of the shared instance without its pooler, for what needs a new connection."""
    start, _, name = url.rpartition("/")
    return f"{start.rpartition(':')[0]}:{shared_instance().port}/{name}"


def ledger_url_in(directory: Path) -> str:
    """Return the URL of a new ledger: a file in the directory, or by ACM_TEST_LEDGER a new database in PostgreSQL.

    With `pgbouncer`, programs reach that by a pooler.
    """
    kind = os.environ.get("ACM_TEST_LEDGER", "sqlite")
    if kind == "sqlite":
        return f"sqlite:///{directory}/ledger.db"
    url = shared_instance().new_database()
    return shared_pooler().pooled(url) if kind == "pgbouncer" else url


class _Served:
    """A program that answers on a port of loopback, with its files in a temporary directory."""

    process: "subprocess.Popen[bytes]"

    def __init__(self, name: str) -> None:
        self._name = name
        self._data = Path(tempfile.mkdtemp(prefix=f"acm-test-{name.lower()}-"))
        self.port = free_port()

    def connect(self, database: str) -> psycopg.Connection:
        """Open a connection that commits each statement; `database` is a name, or a URL of one."""
        name = database.rpartition("/")[2]
        return psycopg.connect(host="127.0.0.1", port=self.port, user="acm", dbname=name, autocommit=True)

    def kill(self) -> None:
        """End the program at once."""
        self.process.kill()
        self.process.wait(20)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._data, ignore_errors=True)

    def _serve(self, argv: Sequence[str | Path], last_signal: str) -> None:
        """Start the program, and wait until it answers."""
        self.process = self._begin(argv, last_signal)
        wait_for(self._answers, f"{self._name}; its log is {self._data / 'log'}")

    def _begin(self, argv: Sequence[str | Path], last_signal: str) -> "subprocess.Popen[bytes]":
        """Start a program as an unprivileged user; it gets the signal when the process of the tests ends."""
        switch = ["--reuid", _USER, "--regid", _USER, "--clear-groups"] if os.geteuid() == 0 else []
        with (self._data / "log").open("ab") as log:
            program = ["setpriv", *switch, "--pdeathsig", last_signal, *map(str, argv)]
            return subprocess.Popen(
                program, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self._data, start_new_session=True
            )

    def _answers(self) -> bool:
        assert self.process.poll() is None, self._end_of_log()
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _end_of_log(self) -> str:
        return (self._data / "log").read_text(errors="replace")[-2000:]


class PostgreSQL(_Served):
    """One instance, with a database for each test. `is_durable`: commits reach the disk, as in production."""

    def __init__(self, *, is_durable: bool = False) -> None:
        self._bin = _programs()
        super().__init__("PostgreSQL")
        self._unused: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self._data, _USER)
        self._settings = [] if is_durable else ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        init = [self._bin / "initdb", "-D", self._data / "data", "-U", "acm", "-A", "trust", "-E", "UTF8"]
        done = self._begin([*init, "--locale=C.UTF-8", "--no-sync"], "QUIT")
        assert done.wait(60) == 0, self._end_of_log()
        self.start()

    def url(self, database: str, *, port: int | None = None) -> str:
        return f"postgresql+psycopg://acm@127.0.0.1:{port or self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"t{uuid.uuid4().hex}"
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return self.url(name)

    def copy(self, url: str) -> str:
        """Copy a database that no program has open, and return the copy's URL."""
        name = f"t{uuid.uuid4().hex}"
        source = sql.Identifier(url.rpartition("/")[2])
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), source))
        return self.url(name)

    @contextmanager
    def borrowed_database(self) -> Iterator[str]:
        """Lend a database without rows, which costs a fifth of a new one; its ledger may exist already."""
        url = self._unused.pop() if self._unused else self.new_database()
        yield url
        self.end_connections(url)
        with self.connect(url) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            with connection.transaction():
                connection.execute("SET LOCAL session_replication_role = replica")  # no order of foreign keys
                for (table,) in tables:
                    if table != "schema_version":
                        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        self._unused.append(url)

    def end_connections(self, url: str) -> None:
        """End all connections to a database, as a restart does, and wait until they are gone; a new one may follow."""
        chosen = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        left = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
        with self.connect("postgres") as connection:
            ended = [row[0] for row in connection.execute(chosen, [url.rpartition("/")[2]])]
            wait_for(lambda: connection.execute(left, [ended]).fetchone() == (0,), "the connections to end")

    def start(self) -> None:
        settings = [f"-c{setting}" for setting in (*self._settings, "listen_addresses=127.0.0.1", "max_connections=60")]
        argv = [self._bin / "postgres", "-D", self._data / "data", "-k", self._data, "-p", str(self.port), *settings]
        self._serve(argv, "QUIT")

    def kill(self) -> None:
        """End the instance at once, as `pg_ctl stop -m immediate` does."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(20)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop all processes of the instance meanwhile, as a disk that hangs does: none of its timeouts works then."""
        group = [self.process.pid]
        # The postmaster first: what it begins while the list is read would continue.
        os.kill(self.process.pid, signal.SIGSTOP)
        wait_for(lambda: _is_stopped(self.process.pid), "the postmaster to stop")
        while new := [pid for pid in _children(self.process.pid) if pid not in group]:
            group += new
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in group:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def kill_after_checkpoint(self) -> None:
        """End the instance once its files have everything, so that none of it is written again at the next start."""
        with self.connect("postgres") as connection:
            connection.execute("CHECKPOINT")
        self.kill()

    @property
    def data(self) -> Path:
        """The directory of its files."""
        return self._data / "data"


class PgBouncer(_Served):
    """A pooler in transaction mode in front of an instance, with few connections to each database.

    Its settings are Debian's, so it refuses the startup parameters that it does not know.
    """

    def __init__(self, instance: PostgreSQL, *, connections: int = 4) -> None:
        if shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.fail(_HELP)
        super().__init__("PgBouncer")
        self._instance = instance
        (self._data / "users").write_text('"acm" ""\n')
        (self._data / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={instance.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self._data}/users\n"
            f"pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 500\n"
            "server_idle_timeout = 5\n"
        )
        if os.geteuid() == 0:
            for path in (self._data, *self._data.iterdir()):
                shutil.chown(path, _USER)
        self.start()

    def start(self) -> None:
        self._serve(["/usr/sbin/pgbouncer", self._data / "pgbouncer.ini"], "TERM")

    def pooled(self, url: str) -> str:
        """Return the URL of a database of the instance by this pooler."""
        return url.replace(f":{self._instance.port}/", f":{self.port}/")


def _programs() -> Path:
    """Return the directory of PostgreSQL's programs, of the newest installed version."""
    found = sorted(_INSTALLED.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        pytest.fail(_HELP)
    return found[-1].parent


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process (proc(5), /proc/pid/stat: the state follows the name in parentheses)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
