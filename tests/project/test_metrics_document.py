"""docs/metrics.md lists every metric that a program exposes, and no other."""

import re
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import httpx
import pytest

from broker.access.access_tokens import AccessTokenStore
from broker.app.api_server import ApiServer
from broker.app.config import ServerConfig, load_config
from broker.app.enrolment_server import EnrolmentServer
from broker.app.factories import open_database, utc_now
from broker.app.server import ServerProcess
from broker.fleet.models import Principal, Role
from broker.metrics.values import Kind, Metric
from broker.signing.key_store import create_signing_keys
from consumer.agent import Agent
from tests.support.brokers import free_port
from tests.support.makers import config
from tests.support.scraped import Scraped, answers, parsed, scrape
from tests.support.secured import SecuredSite
from tests.support.threads import on_a_thread
from tests.support.waiting import wait_for

DOCUMENT = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
MODULES = (
    "broker.api.counting",
    "broker.app.metrics",
    "broker.enrolment.counting",
    "broker.enrolment.ledger_metrics",
    "broker.ledger.gauges",
    "broker.metrics.common",
    "broker.server.counts",
    "consumer.engine.counts",
)
DEFINED = {it.name: it for name in MODULES for it in vars(import_module(name)).values() if isinstance(it, Metric)}
UNITS = ("_seconds", "_bytes", "_total", "_info")


def documented() -> dict[str, list[str]]:
    """Return the cells of the table by the names of the metrics: type, labels, programs, meaning."""
    rows = re.findall(r"^\| `(acm_\w+)` \| (.*) \|$", DOCUMENT, re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in rows}


def of_program(program: str) -> set[str]:
    return {name for name, cells in documented().items() if program in cells[2].split(", ")}


def own(metrics: dict[str, Scraped]) -> set[str]:
    return {name for name in metrics if not name.startswith("process_")}


def test_document_defines_each_metric_as_the_code_does() -> None:
    rows = {name: [cells[0], cells[1], cells[3]] for name, cells in documented().items()}
    assert rows == {
        it.name: [str(it.kind), ", ".join(f"`{label}`" for label in it.labels), it.help] for it in DEFINED.values()
    }


@pytest.mark.parametrize("name", sorted(DEFINED))
def test_name_has_a_unit_and_that_of_a_counter_ends_with_total(name: str) -> None:
    assert name.startswith("acm_")
    assert name.endswith("_total") is (DEFINED[name].kind is Kind.COUNTER)
    assert DEFINED[name].kind is not Kind.HISTOGRAM or name.endswith(UNITS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SecuredSite:
    made = SecuredSite(tmp_path_factory.mktemp("site"))
    create_signing_keys(Path(made.config.ca) / "signing", utc_now())
    return made


def test_server_exposes_what_is_documented(site: SecuredSite) -> None:
    listen = f"127.0.0.1:{free_port()}"
    process = ServerProcess(load_config(site.files.settings, {"metrics_listen": listen}, {}))
    try:
        assert own(scrape(listen)) == of_program("server")
    finally:
        process.stop()
        process.run()


def test_enrolment_server_exposes_what_is_documented(site: SecuredSite) -> None:
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("enroll_listen", "enroll_metrics_listen")}
    with on_a_thread(EnrolmentServer(load_config(site.files.settings, addresses, {}))):
        listen = addresses["enroll_metrics_listen"]
        wait_for(lambda: answers(listen), "the enrolment server")
        assert own(scrape(listen)) == of_program("enrolment")


def test_api_exposes_what_is_documented(tmp_path: Path) -> None:
    settings = ServerConfig(ledger=f"sqlite:///{tmp_path}/ledger.db", api_listen=f"127.0.0.1:{free_port()}")
    with open_database(settings.ledger) as database:
        _, token = AccessTokenStore(database, now=utc_now).add(Principal("p", Role.VIEWER), timedelta(days=1), "test")
    with on_a_thread(ApiServer(settings)):
        answer = httpx.get(
            f"http://{settings.api_listen}/metrics", headers={"Authorization": f"Bearer {token}"}, trust_env=False
        )
    assert own(parsed(answer.text)) == of_program("api")


def test_agent_exposes_what_is_documented(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    settings = config(broker="mqtt://127.0.0.1:1", state=str(tmp_path), metrics_listen=listen, accept_unsigned=True)
    with on_a_thread(Agent(settings)):
        wait_for(lambda: answers(listen), "the agent")
        assert own(scrape(listen)) == of_program("agent")
