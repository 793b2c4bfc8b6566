"""The trace of a command, as a collector gets it from real processes."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.access.access_tokens import AccessTokenStore
from broker.fleet.models import Principal, Role
from tests.acceptance.conftest import Program, Site
from tests.support.brokers import TestBroker, free_port
from tests.support.otlp import Collector, collecting
from tests.support.traced import CALLER, CALLER_SPAN, CALLER_TRACE, chain_of
from tests.support.waiting import wait_for


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def traced_site(broker: TestBroker, tmp_path: Path, collector: Collector) -> Iterator[Site]:
    """A site that signs, whose programs export their spans to the collector."""
    site = Site(broker.url, tmp_path)
    try:
        site.sign()
        site.start_server(**collector.environment)
        yield site
    finally:
        site.stop()


def send(site: Site, collector: Collector, command_type: str) -> dict[str, Any]:
    """Send a command over the API, as a part of a caller's trace, and return it once it has its result."""
    port = free_port()
    argv = [sys.executable, "-m", "broker", "api", "--ledger", site.ledger, "--listen", f"127.0.0.1:{port}"]
    log = site.directory / "api.log"
    site.programs.append(Program(argv, log, **collector.environment))
    wait_for(lambda: "api_started" in log.read_text(), "the API to listen")
    with site.opened_ledger() as ledger:
        tokens = AccessTokenStore(ledger.database, now=lambda: datetime.now(UTC))
        _, token = tokens.add(Principal("alice", Role.OPERATOR), timedelta(days=1), "test")
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False) as http:
        body = {"type": command_type, "agents": ["web-01"]}
        sent = http.post("/v1/commands", json=body, headers={"traceparent": CALLER}).json()["command"]
        return dict(http.get(f"/v1/commands/{sent['id']}", params={"wait_s": 30}).json())


def test_collector_gets_one_trace_of_a_signed_command(traced_site: Site, collector: Collector) -> None:
    traced_site.enroll("web-01")
    argv = [sys.executable, "-m", "consumer", "run", "--state", str(traced_site.state("web-01"))]
    traced_site.programs.append(Program(argv, traced_site.directory / "web-01.log", **collector.environment))
    traced_site.wait_online("web-01")
    shown = send(traced_site, collector, "get-agent-configuration")
    assert (shown["outcome"], shown["trace_id"]) == ("success", CALLER_TRACE)
    spans = wait_for(lambda: len(found := collector.of_trace(CALLER_TRACE)) == 7 and found, "all spans")
    assert chain_of(spans, "process result") == [
        ("acm-api", "POST /v1/commands"),
        ("acm-api", "create get-agent-configuration"),
        ("acm-server", "send get-agent-configuration"),
        ("acm-agent", "process get-agent-configuration"),
        ("acm-agent", "send result"),
        ("acm-server", "process result"),
    ]
    assert (spans[0]["parent"], spans[0]["attributes"]["http.response.status_code"]) == (CALLER_SPAN, 201)
    assert {it["instance"] for it in spans if it["service"] == "acm-agent"} == {"web-01"}
    assert {it["instance"] for it in spans if it["service"] == "acm-server"} == {"acm-server"}
    assert not any(it["is_error"] for it in spans)
