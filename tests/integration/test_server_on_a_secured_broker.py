"""The server's process on a secured Mosquitto, and the second way in, by password."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.app.config import load_config
from broker.app.factories import open_ledger
from broker.app.server import ServerProcess
from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
from broker.mosquitto.process import SecuredMosquitto
from broker.mqtt.connection import MqttConnection
from tests.support.brokers import free_port
from tests.support.secured import SecuredSite
from tests.support.threads import on_a_thread
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def site(tmp_path: Path) -> SecuredSite:
    return SecuredSite(tmp_path)


@pytest.fixture
def secured(site: SecuredSite) -> Iterator[SecuredMosquitto]:
    with SecuredMosquitto(site.directory) as mosquitto:
        yield mosquitto


# paho leaves the socket of a failed handshake to the collector, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_server_connects_with_its_own_certificate(site: SecuredSite, secured: SecuredMosquitto) -> None:
    config = load_config(site.files.settings, {}, {})
    with open_ledger(config.ledger) as ledger:
        ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin(name="test", module="test")))
        files = site.identity("web-01")
        with MqttConnection(site.url, "web-01", tls=files, subscriptions=["acm/web-01/command"]) as agent:
            assert agent.wait_connected(10)
            with on_a_thread(ServerProcess(config)):
                deliveries = wait_for(lambda: agent.drain(0.1), "the command", 15)
    assert deliveries[0].topic == "acm/web-01/command"


def password_listener(site: SecuredSite, port: int) -> str:
    """Return what docs/operations.md says to add, for this directory and port."""
    document = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    block = document.split("### Passwords\n", 1)[1].split("```\n", 2)[1]
    return block.replace("/var/lib/acm/broker", str(site.directory)).replace("8884", str(port))


@pytest.fixture
def passwords(site: SecuredSite, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SecuredMosquitto, int]]:
    port = free_port()
    with (site.directory / "mosquitto.conf").open("a") as configuration:
        configuration.write(password_listener(site, port))
    for name in ("web-02", "web-03"):
        (site.directory / "passwords").touch(mode=0o600)
        subprocess.run(("mosquitto_passwd", "-b", str(site.directory / "passwords"), name, f"of {name}"), check=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(site.directory / "ca.crt"))
    with SecuredMosquitto(site.directory) as mosquitto:
        yield mosquitto, port


def by_password(port: int, name: str, password: str, client_id: str | None = None) -> MqttConnection:
    url = f"mqtts://{name}:{password.replace(' ', '%20')}@127.0.0.1:{port}"
    return MqttConnection(url, client_id or name, subscriptions=["acm/+/command"])


def test_password_works_in_place_of_a_certificate_until_it_is_removed(
    site: SecuredSite, passwords: tuple[SecuredMosquitto, int]
) -> None:
    mosquitto, port = passwords
    with (
        MqttConnection(site.url, "acm-server", tls=site.server) as server,
        by_password(port, "web-02", "of web-02") as agent,
        by_password(port, "web-03", "of web-03", client_id="web-02") as other,
        by_password(port, "web-02", "wrong") as stranger,
    ):
        assert all(connection.wait_connected(10) for connection in (server, agent, other))
        for name in ("web-02", "web-03"):
            server.publish(f"acm/{name}/command", name.encode())
        assert [delivery.payload for delivery in agent.drain(10)] == [b"web-02"]
        assert [delivery.payload for delivery in other.drain(10)] == [b"web-03"]
        wait_for(lambda: "not authorized" in (stranger.last_error or ""), "the refusal")
        assert (agent.connections, stranger.connections) == (1, 0)

        subprocess.run(("mosquitto_passwd", "-D", str(site.directory / "passwords"), "web-02"), check=True)
        assert mosquitto.reload_when_changed()
        wait_for(lambda: "not authorized" in (agent.last_error or ""), "the session to end, and not come back")
        assert other.connected
