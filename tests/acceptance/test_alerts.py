"""Alerts that a real Prometheus fires, from what real processes expose."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.access.access_tokens import AccessTokenStore
from broker.app.factories import open_database
from broker.contract.messages import Origin, Status
from broker.fleet.models import Principal, Role
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.pki.authority import CertificateAuthority, create_authority
from tests.acceptance.conftest import Site
from tests.project.test_alerts import QUERIES
from tests.support.brokers import free_port
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.recorded import record_status
from tests.support.waiting import wait_for

YEAR = timedelta(days=365)  # the lifetime of a server's certificate
HOPS = "sum by (hop, le) (rate(acm_command_hop_seconds_bucket[$__rate_interval]))"


def an_hour_ago() -> datetime:
    return datetime.now(UTC) - timedelta(hours=1)


class Watched:
    """A site whose server, API and one agent are scraped."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.server, self.api, self.agent = (f"127.0.0.1:{free_port()}" for _ in range(3))

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Return the scrape configurations."""
        jobs: dict[str, dict[str, Any]] = {
            name: {"static_configs": [{"targets": [address]}]}
            for name, address in (("acm-server", self.server), ("acm-api", self.api), ("acm-agent", self.agent))
        }
        jobs["acm-api"]["authorization"] = {"credentials": self._token()}
        return jobs

    def start(self) -> None:
        self.site.start_server(ACM_METRICS_LISTEN=self.server)
        argv = [sys.executable, "-m", "broker", "api", "--listen", self.api, "--ledger", self.site.ledger]
        self.site._start("api", argv)
        self.site.start_agent("web-01", ACM_METRICS_LISTEN=self.agent)
        self.site.wait_online("web-01")

    def certificate_that_ends_in(self, left: timedelta) -> None:
        """Write the enrolment server's certificate."""
        directory, then = self.site.directory / "ca", datetime.now(UTC) + left - YEAR
        create_authority(directory, "test", then)
        CertificateAuthority(directory, now=lambda: then).write_server_certificate(["localhost"], directory, "server")

    def _token(self) -> str:
        with open_database(self.site.ledger) as database:
            tokens = AccessTokenStore(database, now=lambda: datetime.now(UTC))
            return tokens.add(Principal("prometheus", Role.VIEWER), timedelta(days=1), "test")[1]


@pytest.fixture
def watched(broker: Any, tmp_path: Path) -> Iterator[Watched]:
    site = Site(broker.url, tmp_path)
    yield Watched(site)
    site.stop()


@pytest.fixture
def prometheus(watched: Watched, tmp_path: Path) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path, watched.jobs()) as running:
        yield running


def test_no_alert_fires_while_commands_run_and_every_query_is_understood(
    watched: Watched, prometheus: Prometheus
) -> None:
    watched.start()
    for job in watched.jobs():
        prometheus.wait_scraped(job)
    watched.site.acm("send", "web-01", "get-audit-journal", "--wait", "30", check=None)
    wait_for(lambda: prometheus.query("acm_results_total"), "the result")
    assert prometheus.firing() == set()
    answers = {query: prometheus.query(query.replace("$__rate_interval", "10s")) for query in QUERIES}
    assert answers[f"histogram_quantile(0.95, {HOPS})"]


def test_alerts_fire_when_what_they_are_about_happens(watched: Watched, prometheus: Prometheus, broker: Any) -> None:
    watched.certificate_that_ends_in(timedelta(days=3))
    prometheus.wait_firing("AcmServerDown")
    watched.start()
    prometheus.wait_firing("AcmCertificateEndsSoon", "AcmRevocationListEndsSoon")
    wait_for(lambda: "AcmServerDown" not in prometheus.firing(), "the end of the alert")
    with open_database(watched.site.ledger) as database:
        earlier = Ledger(database, now=an_hour_ago)
        record_status(earlier, Status("db-01", True, "1", "i", "b", "g"))
        prometheus.wait_firing("AcmAgentsSilent")
        broker.kill()
        prometheus.wait_firing("AcmServerNotConnected", "AcmAgentNotConnected")
        earlier.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
        prometheus.wait_firing("AcmCommandsNotSent")
    assert watched.site.server is not None
    watched.site.server.kill()
    prometheus.wait_firing("AcmServerDown", "AcmCommandsNotSent")
