"""The metrics that the programs serve, scraped from them."""

import socket
import sys
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from broker.app.config import ServerConfig
from broker.app.server import ServerProcess
from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
from broker.metrics.listener import MetricsError, serving_metrics
from tests.support.brokers import TestBroker, free_port
from tests.support.errors import raises_code
from tests.support.scraped import scrape
from tests.support.threads import on_a_thread
from tests.support.waiting import wait_for


@pytest.fixture
def config(tmp_path: Path, broker: TestBroker) -> ServerConfig:
    listen = f"127.0.0.1:{free_port()}"
    return ServerConfig(broker=broker.url, ledger=f"sqlite:///{tmp_path}/ledger.db", metrics_listen=listen)


def test_server_serves_what_its_loop_does(config: ServerConfig) -> None:
    assert config.metrics_listen is not None
    listen = config.metrics_listen
    process = ServerProcess(config)
    with on_a_thread(process):
        wait_for(lambda: scrape(listen)["acm_broker_connected"].value(), "the connection")
        process.ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
        wait_for(lambda: scrape(listen)["acm_commands_sent_total"].value(attempt="first"), "the command")
        metrics = scrape(listen)
    assert metrics["acm_broker_connections_total"].value() == 1
    assert metrics["acm_ledger_commits_total"].value() > 1
    assert metrics["process_resident_memory_bytes"].value() > 1e6
    with pytest.raises(httpx.ConnectError):
        scrape(listen)


def test_server_without_the_setting_serves_none_and_counts_nothing(config: ServerConfig) -> None:
    ledger = config.ledger
    process = ServerProcess(ServerConfig(broker=config.broker, ledger=ledger))
    with on_a_thread(process), pytest.raises(httpx.ConnectError):
        scrape(str(config.metrics_listen))


def test_address_in_use_is_logged_and_stops_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, capture_logs() as logs:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with serving_metrics("metrics_listen", listen, []):
            pass
    assert [it["event"] for it in logs] == ["metrics_not_served"]


def test_missing_library_is_logged_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with capture_logs() as logs, serving_metrics("metrics_listen", f"127.0.0.1:{free_port()}", []):
        pass
    assert [(it["event"], "EXTRA=metrics" in it["reason"]) for it in logs] == [("metrics_not_served", True)]


def test_bad_address_is_refused() -> None:
    with raises_code(MetricsError, "bad_metrics_address"), serving_metrics("metrics_listen", "9444", []):
        pass


def test_address_that_others_reach_is_logged() -> None:
    with capture_logs() as logs, serving_metrics("metrics_listen", f"0.0.0.0:{free_port()}", []):
        pass
    assert "metrics_without_tls" in [it["event"] for it in logs]
