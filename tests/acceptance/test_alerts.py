"""Alerts that a real Prometheus fires, and the dashboard's queries, from what real processes expose."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from math import isfinite
from pathlib import Path

import pytest

from tests.acceptance.watched_site import WatchedSite
from tests.project.test_alerts import ALERTS, dashboard_queries
from tests.support.brokers import ContainerBroker, LocalBroker, TestBroker
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.small_disks import mounted
from tests.support.waiting import holds_within, wait_for

MANY = 100
TURNS = "acm_server_turn_seconds_count[5s]"
STANDS_STILL = f"changes({TURNS}) == 0 and count_over_time({TURNS}) > 3"  # an idle server has a turn every two seconds
SHOWS_FAULTS = {"acm_agent_problem", "acm_agent_messages_refused_total"}


@pytest.fixture(scope="module")
def site_broker(broker_kind: Callable[[], ContainerBroker | LocalBroker]) -> Iterator[TestBroker]:
    running = broker_kind()
    if isinstance(running, LocalBroker):
        running.start()
    yield running
    running.remove()


@pytest.fixture(scope="module")
def site(site_broker: TestBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedSite]:
    """One site for all tests; the last one leaves little of it."""
    directory = tmp_path_factory.mktemp("site")
    with mounted(directory / "disk", "16m") as disk:
        site = WatchedSite(site_broker.url, directory, disk)
        try:
            site.start()
            yield site
        finally:
            site.stop()


@pytest.fixture
def prometheus(site: WatchedSite, tmp_path: Path) -> Iterator[Prometheus]:
    jobs = site.jobs()
    with running_prometheus(tmp_path, jobs) as running:
        for job in jobs:
            running.wait_scraped(job)
        yield running


def shows_a_number(prometheus: Prometheus, query: str) -> bool:
    samples = prometheus.query(query.replace("$__rate_interval", "1m"))
    return any(isfinite(float(it["value"][1])) for it in samples)


def test_no_alert_fires_while_commands_run_and_each_panel_shows_them_on_sqlite(
    site: WatchedSite, prometheus: Prometheus
) -> None:
    site.ask_enrolment_server()
    commands = [site.enqueue(agent, "get-audit-journal", {}) for agent in ("web-01", "web-02")]
    assert [site.result(it)["outcome"] for it in commands] == ["success"] * 2
    for query in set(dashboard_queries()) - SHOWS_FAULTS:
        wait_for(lambda query=query: site.ask_enrolment_server() or shows_a_number(prometheus, query), query)
    assert prometheus.firing() == set()


def test_each_alert_fires_when_what_it_is_about_happens_on_sqlite(
    site: WatchedSite, prometheus: Prometheus, site_broker: TestBroker
) -> None:
    stage_commands_that_stay(site)
    alerts_on_a_slow_ledger_and_garbage(site, prometheus)
    alerts_on_agents_and_certificates(site, prometheus)
    prometheus.wait_fired("AcmCommandRunsLong", "AcmCommandsNotAccepted", "AcmRowsSetAside")
    prometheus.wait_fired("AcmAgentsDoNotAnswer", "AcmCommandsSentAgain")
    with site.full_disk():
        site.web_02.kill()
        prometheus.wait_fired("AcmLedgerNotAvailable")
    site_broker.kill()
    site.note_once("web-02", age=timedelta(hours=1))
    prometheus.wait_fired("AcmServerNotConnected", "AcmAgentNotConnected", "AcmCommandsNotSent")
    site.server.kill()
    prometheus.wait_fired("AcmServerDown")
    assert prometheus.fired() == set(ALERTS)


def stage_commands_that_stay(site: WatchedSite) -> None:
    site.note_once("web-01", age=timedelta(hours=3))
    site.seem_online("db-02")
    damaged, *_ = site.note_once("db-02", age=timedelta(days=2), count=MANY)
    wait_for(lambda: site.show(damaged)["state"] == "sent", "the commands to be sent")
    site.damage(damaged)


def alerts_on_a_slow_ledger_and_garbage(site: WatchedSite, prometheus: Prometheus) -> None:
    site.send_garbage()
    site.web_02.kill()
    wait_for(lambda: has_slow_turns(site, prometheus), "slow turns", 120)
    prometheus.wait_fired("AcmMessagesRefused", "AcmAgentHasProblem", "AcmAgentsOffline")
    assert all(shows_a_number(prometheus, query) for query in SHOWS_FAULTS)


def has_slow_turns(site: WatchedSite, prometheus: Prometheus) -> bool:
    """Make a turn slow, and return whether that is enough: one in twenty of the last minutes."""
    site.note_once("db-02")  # so that the server soon has to write: that it was not answered, or again
    with site.held_ledger():
        wait_for(lambda: prometheus.query(STANDS_STILL), "the server to wait for the ledger")
    return bool(holds_within(3, lambda: "AcmServerSlow" in prometheus.fired()))


def alerts_on_agents_and_certificates(site: WatchedSite, prometheus: Prometheus) -> None:
    site.lose_store_of_web_02()
    site.start_web_02()
    site.enrolment_server.kill()
    site.let_certificates_end()
    site.let_certificate_of_agent_end()
    site.seem_online("db-01", age=timedelta(hours=1))
    site.wait_online("web-02")
    failing = site.note_once("web-02", count=15)
    assert {site.result(it)["code"] for it in failing} == {"unsupported"}
    prometheus.wait_fired("AcmStoresLost", "AcmCommandsFail", "AcmAgentsSilent", "AcmAgentCertificatesEndSoon")
    prometheus.wait_fired("AcmEnrolmentServerDown", "AcmCertificateEndsSoon", "AcmRevocationListEndsSoon")
