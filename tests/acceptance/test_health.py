"""/healthz and /readyz of the API and the enrolment server, while each part that they look at fails."""

import signal
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import Program, Site
from tests.support.brokers import TestBroker, free_port
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_for

HEALTHY = {"status": "healthy"}


class Probed:
    """A program on the ledger of a site that answers probes; with the certificate of an authority, over TLS."""

    def __init__(self, site: Site, name: str, *arguments: str, authority: Path | None = None) -> None:
        listen = f"127.0.0.1:{free_port()}"
        words = [name, *arguments, "--ledger", site.ledger, "--listen", listen]
        log = site.directory / f"{name}.log"
        self.program = Program([sys.executable, "-m", "broker", *words], log, ACM_CA=str(site.directory / "ca"))
        site.programs.append(self.program)
        self._url = f"http://{listen}" if authority is None else f"https://{listen}"
        self._trust = True if authority is None else ssl.create_default_context(cafile=str(authority))
        wait_for(lambda: f'"listen":"{listen}"' in log.read_text(), f"{name} to listen")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self._url + path, timeout=30, verify=self._trust, trust_env=False)

    def readiness(self) -> tuple[int, dict[str, str]]:
        """Return the status of /readyz, and the codes of the checks that are not ok."""
        answer = self.get("/readyz")
        body = answer.json()
        assert body["ready"] is (answer.status_code == 200)
        return answer.status_code, {it["name"]: it["code"] for it in body["checks"] if not it["ok"]}

    def wait_for(self, status: int, **failing: str) -> None:
        wait_for(lambda: self.readiness() == (status, failing), f"{status} {failing}, not {self.readiness()}", 60)


def enrolment_server(site: Site) -> Probed:
    ca = site.directory / "ca"
    site.sign().authority.write_server_certificate(["127.0.0.1"], ca, "server")
    return Probed(site, "enroll-server", "--broker", site.broker_url, authority=ca / "ca.crt")


@pytest.fixture
def api(site: Site) -> Probed:
    started = Probed(site, "api")
    started.wait_for(200)
    return started


@contextmanager
def stopped(program: Program) -> Iterator[None]:
    program.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        program.process.send_signal(signal.SIGCONT)


@pytest.mark.usefixtures("both_ledgers")
def test_readiness_follows_the_server_and_its_connection(site: Site, api: Probed, broker: TestBroker) -> None:
    assert site.server is not None
    with stopped(site.server):
        api.wait_for(503, intake="stands_still")
    api.wait_for(200)
    broker.stop()
    api.wait_for(503, broker="not_connected")
    broker.start()
    api.wait_for(200)
    site.server.kill()
    api.wait_for(503, server="not_running", broker="not_connected", intake="stands_still")
    healthy = api.get("/healthz")
    assert (healthy.status_code, healthy.json()) == (200, HEALTHY)


def test_readiness_follows_the_database_also_at_the_enrolment_server(
    broker: TestBroker, tmp_path: Path, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACM_TEST_LEDGER", "postgresql")
    site = Site(broker.url, tmp_path)
    try:
        enrolment = enrolment_server(site)
        site.start_server()
        api = Probed(site, "api")
        for program in (api, enrolment):
            program.wait_for(200)
        broker.stop()
        api.wait_for(503, broker="not_connected")
        assert enrolment.readiness() == (200, {})
        name = site.ledger.rpartition("/")[2]
        unknown = dict.fromkeys(("server", "broker", "intake"), "unknown")
        with postgresql.connect("postgres") as other:
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            postgresql.end_connections(site.ledger)
            api.wait_for(503, ledger="ledger_not_reachable", **unknown)
            enrolment.wait_for(503, ledger="ledger_not_reachable")
            for program in (api, enrolment):
                assert (program.get("/healthz").status_code, program.get("/healthz").json()) == (200, HEALTHY)
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        api.wait_for(503, broker="not_connected")
        enrolment.wait_for(200)
    finally:
        site.stop()
