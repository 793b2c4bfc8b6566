"""/healthz and /readyz of the API, while each part that they look at fails."""

import signal
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


class Api:
    """`acm api` on the ledger of a site."""

    def __init__(self, site: Site) -> None:
        port = free_port()
        words = ["api", "--ledger", site.ledger, "--listen", f"127.0.0.1:{port}"]
        log = site.directory / "api.log"
        self.program = Program([sys.executable, "-m", "broker", *words], log)
        site.programs.append(self.program)
        self.url = f"http://127.0.0.1:{port}"
        wait_for(lambda: "api_started" in log.read_text(), "the API to listen")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, trust_env=False)

    def readiness(self) -> tuple[int, dict[str, str]]:
        """Return the status of /readyz, and the codes of the checks that are not ok."""
        answer = self.get("/readyz")
        body = answer.json()
        assert body["ready"] is (answer.status_code == 200)
        return answer.status_code, {it["name"]: it["code"] for it in body["checks"] if not it["ok"]}

    def wait_for(self, status: int, **failing: str) -> None:
        wait_for(lambda: self.readiness() == (status, failing), f"{status} {failing}, not {self.readiness()}", 60)


@pytest.fixture
def api(site: Site) -> Api:
    started = Api(site)
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
def test_readiness_follows_the_server_and_its_connection(site: Site, api: Api, broker: TestBroker) -> None:
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
    assert (healthy.status_code, healthy.json()) == (200, {"status": "healthy"})


def test_readiness_follows_the_database(
    broker: TestBroker, tmp_path: Path, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACM_TEST_LEDGER", "postgresql")
    site = Site(broker.url, tmp_path)
    try:
        site.start_server()
        api = Api(site)
        api.wait_for(200)
        name = site.ledger.rpartition("/")[2]
        unknown = dict.fromkeys(("server", "broker", "intake"), "unknown")
        with postgresql.connect("postgres") as other:
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            postgresql.end_connections(site.ledger)
            api.wait_for(503, ledger="ledger_not_reachable", **unknown)
            assert api.get("/healthz").status_code == 200
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        api.wait_for(200)
    finally:
        site.stop()
