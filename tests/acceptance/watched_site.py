"""A site whose programs are scraped, and faults of it that an operator would be alerted to."""

import shutil
import sqlite3
import ssl
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from broker.access.access_tokens import AccessTokenStore
from broker.app.factories import open_database
from broker.contract.enrolment import CA_PATH
from broker.contract.messages import Origin, Status
from broker.fleet.models import Principal, Role
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import COMMANDS
from broker.mqtt.connection import MqttConnection
from broker.pki.authority import CertificateAuthority, crl_path
from tests.acceptance.conftest import Program, Site
from tests.support.brokers import free_port
from tests.support.damage import overwrite
from tests.support.enrolling import EnrolmentBackend
from tests.support.recorded import record_status
from tests.support.small_disks import filled
from tests.support.waiting import wait_for

__all__ = ["WatchedSite"]

_YEAR = timedelta(days=365)  # the lifetime of a server's certificate
_DAYS = timedelta(days=3)
_HOLD_S = 600.0


class WatchedSite(Site):
    """web-01 is scraped and has the command type note-once, which takes its time; web-02 has not.

    The agents are enrolled, so that there are certificates. The ledger is on the file system at `disk`.
    """

    def __init__(self, broker_url: str, directory: Path, disk: Path) -> None:
        super().__init__(broker_url, directory)
        self._disk = disk
        self._file = disk / "ledger.db"
        self.ledger = f"sqlite:///{self._file}"
        self._addresses = {name: f"127.0.0.1:{free_port()}" for name in ("server", "enroll-server", "api", "agent")}
        self._ca = directory / "ca"
        self._enrolment_address = f"127.0.0.1:{free_port()}"

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Return the scrape configurations, with the names that the alerts expect."""
        jobs: dict[str, dict[str, Any]] = {
            f"acm-{name}": {"static_configs": [{"targets": [address]}]} for name, address in self._addresses.items()
        }
        jobs["acm-api"]["authorization"] = {"credentials": self._token()}
        return jobs

    def start(self) -> None:
        """Start all programs, and wait until both agents are online."""
        self.sign().authority.write_server_certificate(["127.0.0.1"], self._ca, "server")
        for agent in ("web-01", "web-02", "db-01", "db-02"):
            self.enroll(agent)
        self._trust = ssl.create_default_context(cafile=str(self._ca / "ca.crt"))
        self.server = self.start_server(ACM_METRICS_LISTEN=self._addresses["server"])
        self._start_beside("api", "--listen", self._addresses["api"])
        enroll = ("enroll-server", "--listen", self._enrolment_address, "--broker", self.broker_url)
        metrics = self._addresses["enroll-server"]
        self.enrolment_server = self._start_beside(*enroll, ACM_ENROLL_METRICS_LISTEN=metrics)
        slow = "tests.acceptance.slow_agent"
        self.start_enrolled_agent("web-01", module=slow, ACM_METRICS_LISTEN=self._addresses["agent"])
        self.start_web_02()
        self.wait_online("web-01")
        self.wait_online("web-02")

    def start_web_02(self) -> None:
        self.web_02 = self.start_enrolled_agent("web-02")

    def ask_enrolment_server(self) -> None:
        """Request the certificate of the authority."""
        httpx.get(f"https://{self._enrolment_address}{CA_PATH}", verify=self._trust, trust_env=False).raise_for_status()

    def note_once(self, agent: str, *, age: timedelta = timedelta(0), count: int = 1) -> list[str]:
        """Add commands that were created a while ago, and return their ids."""
        request = CommandRequest(
            "note-once", {"path": str(self.directory / "notes"), "hold_s": _HOLD_S}, Origin("me", "test")
        )
        with self._ledger_of(age) as ledger:
            return [ledger.add_command(agent, request).id for _ in range(count)]

    def seem_online(self, agent: str, *, age: timedelta = timedelta(0)) -> None:
        """Record the status of an agent that does not exist, as of a while ago."""
        with self._ledger_of(age) as ledger:
            record_status(ledger, Status(agent, True, "1", "i", "b", "g"))

    def send_garbage(self) -> None:
        """Publish what cannot be decoded, to web-01 and as from it."""
        with MqttConnection(self.broker_url, "stranger", clean_start=True, session_expiry_s=0) as connection:
            assert connection.wait_connected(10)
            for channel in ("command", "feedback"):
                connection.publish(f"acm/web-01/{channel}", b"garbage")
            wait_for(lambda: connection.backlog == 0, "the broker to confirm")

    def damage(self, command_id: str) -> None:
        """Alter what the ledger has of a command."""
        overwrite(self.ledger, COMMANDS.c.body, command_id, b"{}")

    @contextmanager
    def held_ledger(self) -> Iterator[None]:
        """Hold the lock of the ledger for a block, so that no other process writes to it."""
        with open_database(self.ledger) as database, database.transaction():
            yield

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Leave no room on the ledger's file system, nor in its write-ahead log, for a block."""
        with closing(sqlite3.connect(self._file)) as connection:
            checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)"
            wait_for(lambda: connection.execute(checkpoint).fetchone()[0] == 0, "the log to be empty")
        filler = filled(self._disk)
        yield
        filler.unlink()

    def lose_store_of_web_02(self) -> None:
        shutil.rmtree(self.state("web-02") / "commands")

    def let_certificates_end(self) -> None:
        """Write a certificate and a revocation list as they are when the enrolment server has not run for long."""
        then = datetime.now(UTC) + _DAYS - _YEAR
        authority = CertificateAuthority(self._ca, now=lambda: then)
        authority.write_server_certificate(["127.0.0.1"], self._ca, "server")
        authority.write_revocation_list(lambda: [], crl_path(self._ca))

    def let_certificate_of_agent_end(self) -> None:
        """Enroll an agent whose certificate ends in a few days."""
        assert self.registrar is not None
        backend = EnrolmentBackend(self.registrar.authority, self.ledger, lambda: datetime.now(UTC))
        with backend.database:
            backend.enroll("db-03", lifetime=_DAYS)

    @contextmanager
    def _ledger_of(self, age: timedelta) -> Iterator[Ledger]:
        """Open the ledger as it would have been a while ago."""
        with open_database(self.ledger) as database:
            yield Ledger(database, now=lambda: datetime.now(UTC) - age)

    def _start_beside(self, name: str, *arguments: str, **environment: str) -> Program:
        argv = [sys.executable, "-m", "broker", name, *arguments, "--ledger", self.ledger]
        return self._start(name, argv, ACM_CA=str(self._ca), **environment)

    def _token(self) -> str:
        with open_database(self.ledger) as database:
            tokens = AccessTokenStore(database, now=lambda: datetime.now(UTC))
            return tokens.add(Principal("prometheus", Role.VIEWER), timedelta(days=1), "test")[1]
