"""What runs in a row of the benchmark: a broker, a ledger, a server as users run it, and a fleet."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import sqlalchemy as sa

from benchmarks.fleet.driver import STATUS_PAUSE_S, FleetProcesses, fleet
from benchmarks.measuring.ledger_rows import NO_OP
from broker.app.factories import open_ledger
from broker.enrolment.tables import ENROLMENTS
from broker.ledger.ledger import Ledger
from broker.ledger.tables import AGENTS
from broker.mosquitto.process import EmbeddedMosquitto
from broker.signing.key_store import SigningKeyStore, create_signing_keys

__all__ = ["Server", "Site", "fill", "known_since", "site", "wait_until"]

_START_S = 60.0
_POLL_S = 0.02


class Server:
    """A server process that can be stopped for a moment, as if it were slow."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("ACM_")}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**variables, **environment}
            )
        self.log = log

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process.poll() is None, f"the server has ended: {self.log.read_text()[-2000:]}"
        return self._process.pid

    @contextmanager
    def stopped(self, ledger_file: Path | None) -> Iterator[None]:
        """Stop it for the block, at a moment when it does not hold the lock of a SQLite ledger."""
        while True:
            os.kill(self.pid, signal.SIGSTOP)
            if ledger_file is None or _is_unlocked(ledger_file):
                break
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """End it; a server that does not end within a while is killed."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Site:
    """A broker with a ledger at `url`, and directories; servers and fleets are started by the row."""

    def __init__(self, directory: Path, broker: EmbeddedMosquitto, url: str, status_pause_s: float) -> None:
        self.directory, self.broker, self.url = directory, broker, url
        self.status_pause_s = status_pause_s
        self.enrolments: dict[str, tuple[str, int]] = {}

    @property
    def ledger_file(self) -> Path | None:
        """The file of a SQLite ledger."""
        return Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite") else None

    @property
    def broker_pid(self) -> int:
        """The id of Mosquitto's process."""
        process = self.broker._child._process
        assert process is not None
        return process.pid

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """Open the ledger."""
        with open_ledger(self.url) as ledger:
            yield ledger

    @contextmanager
    def acm_server(self, metrics: str | None = None) -> Iterator[Server]:
        """Run `acm server`; it is connected at the start of the block.

        With its metrics at an address it also logs commands, and without them only warnings.
        """
        argv = [str(Path(sys.executable).with_name("acm")), "server", "--broker", self.broker.url, "--ledger", self.url]
        signing = str(self.directory / ("signing" if self.enrolments else "no-signing"))
        watched = {"ACM_LOG_LEVEL": "warning"} if metrics is None else {"ACM_METRICS_LISTEN": metrics}
        with self._served(argv, {"ACM_SIGNING_KEYS": signing, **watched}) as server:
            yield server

    @contextmanager
    def naive_server(self) -> Iterator[Server]:
        """Run the naive server; it is connected at the start of the block."""
        argv = [sys.executable, "-m", "benchmarks.server.naive", self.broker.url, str(self.naive_ledger)]
        with self._served(argv, {}) as server:
            yield server

    @property
    def naive_ledger(self) -> Path:
        """The file of the naive server's ledger."""
        return self.directory / "naive.db"

    @contextmanager
    def _served(self, argv: Sequence[str], environment: Mapping[str, str]) -> Iterator[Server]:
        before = self.server_connections()
        server = Server(argv, environment, self.directory / "server.log")
        try:
            wait_until(lambda: server.pid and self.server_connections() > before, "the server to connect")
            yield server
        finally:
            server.end()

    def server_connections(self) -> int:
        """Return how often a server has connected, by the broker's log."""
        return self.broker.log_path.read_text(errors="replace").count(" as acm-server ")

    @contextmanager
    def fleet(self, names: Sequence[str], processes: int = 2) -> Iterator[FleetProcesses]:
        """Run a fleet of agents that are not connected yet."""
        broker, pause_s = ("127.0.0.1", self.broker.port), self.status_pause_s
        with fleet(broker, names, processes=processes, enrolments=self.enrolments, status_pause_s=pause_s) as running:
            yield running

    def enroll(self, names: Sequence[str]) -> None:
        """Make signing keys, and the enrolments of these agents in the ledger; the server signs from then on."""
        create_signing_keys(self.directory / "signing", datetime.now(UTC))
        version = SigningKeyStore(self.directory / "signing").version
        self.enrolments = {name: (str(uuid.uuid4()), version) for name in names}
        at = time.time()
        rows = [{"id": it[0], "agent": name, "enrolled_at": at} for name, it in self.enrolments.items()]
        with self.ledger() as ledger, ledger.database.transaction() as connection:
            connection.execute(ENROLMENTS.insert(), rows)


@contextmanager
def site(url: str | None = None, status_pause_s: float = STATUS_PAUSE_S) -> Iterator[Site]:
    """Run a new broker beside a new ledger, by default in SQLite, else in the empty database at `url`."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="acm-bench-")))
        broker = stack.enter_context(EmbeddedMosquitto())
        yield Site(directory, broker, url or f"sqlite:///{directory}/ledger.db", status_pause_s)


def fill(ledger: Ledger, agents: Sequence[str], each: int) -> None:
    """Queue `each` commands for each agent, as `acm send` does with a target of many agents."""
    for _ in range(each):
        ledger.add_operation(agents, "bench", NO_OP)


def known_since(ledger: Ledger, moment: float) -> int:
    """Return how many agents have sent a status that was recorded since this time (seconds since 1970)."""
    with ledger.database.reading() as connection:
        seen = sa.select(sa.func.count()).where(AGENTS.c.seen_at >= moment, AGENTS.c.online.is_(True))
        return int(connection.scalar(seen) or 0)


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = _START_S) -> float:
    """Poll until the condition holds; return when that was (monotonic)."""
    end = monotonic() + timeout_s
    while not condition():
        if monotonic() > end:
            raise TimeoutError(f"Timed out after {timeout_s:g} s waiting for {what}.")
        time.sleep(_POLL_S)
    return monotonic()


def _is_unlocked(ledger: Path) -> bool:
    connection = sqlite3.connect(ledger, isolation_level=None, timeout=0)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True
