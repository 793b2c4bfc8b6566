"""The doctor's findings on brokers that are staged: a real Mosquitto with the files of `acm broker config`, changed."""

import gc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.app.config import ServerConfig
from broker.contract.topics import Topics
from broker.doctor import access, broker
from broker.doctor.access import check_access
from broker.doctor.broker import check_broker
from broker.mosquitto.process import SecuredMosquitto
from broker.mqtt.connection import MqttConnection
from broker.pki.authority import CertificateAuthority
from broker.pki.certificates import DOCTOR
from broker.server.server import Server
from broker.system.findings import NOT_CHECKED, Finding
from tests.support.authority import TestAuthority
from tests.support.brokers import tuned_mosquitto
from tests.support.fakes.mqtt5_broker import scripted_broker
from tests.support.findings import codes, only
from tests.support.secured import SecuredSite
from tests.support.waiting import wait_for

# paho leaves sockets to the collector, which warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def now() -> datetime:
    return datetime.now(UTC)


def config_of(site: SecuredSite, **changed: Any) -> ServerConfig:
    """The configuration of the site's server."""
    files = site.server
    own = {"broker_ca": str(files.ca), "broker_certificate": str(files.certificate), "broker_key": str(files.key)}
    crl = str(site.files.revocation_list)
    return msgspec.structs.replace(site.config, **{"broker": site.url, "crl": crl, **own, **changed})


def stranger_in(directory: Path) -> Path:
    """A directory with ca.pem, certificate.pem and key.pem of another authority, for the server's name."""
    TestAuthority().write_identity(directory / "stranger", "acm-server")
    return directory / "stranger"


@pytest.fixture(autouse=True)
def left_sockets() -> Iterator[None]:
    """Collect them within the test that ignores the warnings."""
    yield
    gc.collect()


@pytest.fixture
def site(tmp_path: Path) -> SecuredSite:
    return SecuredSite(tmp_path)


@pytest.fixture
def running(site: SecuredSite) -> Iterator[SecuredSite]:
    with SecuredMosquitto(site.directory):
        yield site


def configure(site: SecuredSite, **replaced: str) -> None:
    """Change settings of the broker; an empty value removes one."""
    file = site.directory / "mosquitto.conf"
    lines = file.read_text().splitlines()
    kept = [line for line in lines if line.partition(" ")[0] not in replaced]
    file.write_text("\n".join([*kept, *(f"{name} {value}" for name, value in replaced.items() if value), ""]))


# -- reaching it


def test_secured_broker_that_is_as_it_should_be(running: SecuredSite) -> None:
    config = config_of(running)
    assert codes(check_broker(config, now())) == []
    assert codes(check_access(config, now())) == []


def test_broker_that_does_not_run(site: SecuredSite) -> None:
    config = config_of(site)
    only(check_broker(config, now()), broker.UNREACHABLE, f"127.0.0.1:{site.port}", "connection refused")
    only(check_access(config, now()), NOT_CHECKED, "connection refused")


def test_port_of_another_kind_of_server() -> None:
    with scripted_broker() as running:
        running.connack = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        config = ServerConfig(broker=running.url)
        only(check_broker(config, now()), broker.NOT_MQTT5, running.url.removeprefix("mqtt://"), "docs/brokers.md")


def test_broker_whose_authority_the_server_does_not_trust(running: SecuredSite, tmp_path: Path) -> None:
    config = config_of(running, broker_ca=str(stranger_in(tmp_path) / "ca.pem"))
    only(check_broker(config, now()), broker.NOT_TRUSTED, "an authority that is not trusted")


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_server_whose_certificate_the_broker_does_not_trust(site: SecuredSite, tmp_path: Path, version: str) -> None:
    configure(site, tls_version=version)
    files = stranger_in(tmp_path)
    own = {"broker_certificate": str(files / "certificate.pem"), "broker_key": str(files / "key.pem")}
    with SecuredMosquitto(site.directory):
        only(check_broker(config_of(site, **own), now()), broker.SERVER_REFUSED, "does not trust the authority")


def test_key_that_is_not_the_certificates(running: SecuredSite, tmp_path: Path) -> None:
    config = config_of(running, broker_key=str(stranger_in(tmp_path) / "key.pem"))
    only(check_broker(config, now()), broker.TLS_FILES, "does not belong to the certificate")


def test_broker_whose_certificate_is_not_for_the_host_of_agents(running: SecuredSite) -> None:
    good = config_of(running, enroll_broker=f"mqtts://broker.example.org:{running.port}")
    assert codes(check_broker(good, now())) == []
    bad = config_of(running, enroll_broker=f"mqtts://other.example.org:{running.port}")
    only(check_broker(bad, now()), broker.OTHER_HOST, "other.example.org", "--host other.example.org")


def test_broker_that_has_not_loaded_its_new_certificate(running: SecuredSite) -> None:
    running.files.write(running.authority)
    only(check_broker(config_of(running), now()), broker.NOT_LOADED, "broker.pem", "reload")


def test_broker_without_tls_for_trials(tmp_path: Path) -> None:
    with tuned_mosquitto(tmp_path) as url:
        config = ServerConfig(broker=url, ca=str(tmp_path / "none"))
        only(check_broker(config, now()), broker.WITHOUT_TLS, "has no TLS")
        findings = list(check_access(config, now()))
    is_open, topics = findings
    assert (is_open.code, topics.code) == ("broker_open", "not_checked")


def test_broker_with_passwords_that_accepts_clients_without(tmp_path: Path) -> None:
    with tuned_mosquitto(tmp_path) as url:
        config = ServerConfig(broker=url.replace("://", "://acm-server:secret@"), ca=str(tmp_path / "none"))
        found = next(it for it in check_access(config, now()) if it.code != "ok")
    assert found.code == "broker_accepts_strangers"


def test_broker_with_passwords_that_refuses_clients_without(tmp_path: Path) -> None:
    with tuned_mosquitto(tmp_path, "allow_anonymous false") as url:
        config = ServerConfig(broker=url.replace("://", "://acm-server:secret@"), ca=str(tmp_path / "none"))
        assert codes(check_broker(config, now())) == ["broker_without_tls"]
        assert codes(check_access(config, now())) == ["not_checked"]  # the topics


# -- what it refuses


def test_client_without_a_certificate_of_the_authority(site: SecuredSite) -> None:
    open_to_all = {"require_certificate": "false", "allow_anonymous": "true", "crlfile": ""}
    configure(site, **open_to_all, use_identity_as_username="", use_username_as_clientid="")
    with SecuredMosquitto(site.directory):
        findings = list(check_access(config_of(site), now()))
    accepted = [it.found for it in findings if it.code == "broker_accepts_strangers"]
    assert ["without a certificate" in accepted[0], "another authority" in accepted[1]] == [True, True]


def test_broker_with_an_expired_revocation_list_refuses_all(site: SecuredSite, tmp_path: Path) -> None:
    past = CertificateAuthority(tmp_path / "ca", now=lambda: now() - timedelta(days=8))
    past.write_revocation_list(list, site.files.revocation_list)
    with SecuredMosquitto(site.directory):
        config = config_of(site)
        only(check_broker(config, now()), broker.SERVER_REFUSED, "revocation list, has ended", "acm ca crl")
        only(check_access(config, now()), access.AGENTS_REFUSED, "revocation list, has ended", "acm ca crl")


def with_statuses(site: SecuredSite) -> None:
    """Let the broker keep the status of an agent, as the agent publishes it."""
    agent = MqttConnection(site.url, "web-01", tls=site.identity("web-01"), clean_start=True, session_expiry_s=0)
    with agent:
        assert agent.wait_connected(20)
        agent.publish("acm/web-01/status", b"{}", retain=True)
        wait_for(lambda: not agent.backlog, "the status to be stored")


def findings_with_acl(site: SecuredSite, rules: str | None) -> list[Finding]:
    if rules is None:
        configure(site, acl_file="")
    else:
        (site.directory / "acl").write_text(rules)
    with SecuredMosquitto(site.directory):
        with_statuses(site)
        return list(check_access(config_of(site), now()))


OWN_ACL = "user acm-server\ntopic readwrite acm/#\npattern write acm/%u/status\n"


@pytest.mark.parametrize(
    ("rules", "expected", "topic"),
    [
        (None, ["acl_lets_agents_write", "acl_lets_agents_read"], f"acm/{DOCTOR}-other/feedback"),
        (OWN_ACL + "pattern write acm/+/feedback\n", ["acl_lets_agents_write"], f"acm/{DOCTOR}-other/feedback"),
        (OWN_ACL + "pattern write acm/%u/command\n", ["acl_lets_agents_write"], f"acm/{DOCTOR}/command"),
        (OWN_ACL + "pattern read acm/+/status\n", ["acl_lets_agents_read"], "acm/web-01/status"),
        (OWN_ACL + "pattern read $SYS/#\n", ["acl_lets_agents_read"], "$SYS/"),
        (OWN_ACL, [], ""),
    ],
)
def test_access_control_list_is_tried(site: SecuredSite, rules: str | None, expected: list[str], topic: str) -> None:
    findings = findings_with_acl(site, rules)
    assert codes(findings) == expected
    assert all(topic in it.found for it in findings if it.code in expected[:1])


def test_revoked_certificate_that_the_broker_accepts(site: SecuredSite) -> None:
    with SecuredMosquitto(site.directory) as mosquitto:
        site.revoke(site.identity("web-02"))
        only(check_access(config_of(site), now()), access.REVOKED_ACCEPTED, "revoked", "reload")
        assert mosquitto.reload_when_changed()
        wait_for(lambda: codes(check_access(config_of(site), now())) == [], "the broker to use the list")


def test_machine_without_the_authority(running: SecuredSite, tmp_path: Path) -> None:
    config = config_of(running, ca=str(tmp_path / "none"))
    assert codes(check_broker(config, now())) == []
    found = only(check_access(config, now()), NOT_CHECKED, "topics of agents", "has no authority")
    assert "acl" in found.check


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read(running: SecuredSite, tmp_path: Path, content: str | None) -> None:
    ca = tmp_path / "broken.pem"
    if content is not None:
        ca.write_text(content)
    config = config_of(running, broker_ca=str(ca))
    only(check_broker(config, now()), broker.TLS_FILES, str(ca))
    only(check_access(config, now()), NOT_CHECKED, str(ca))


def test_server_notices_nothing(running: SecuredSite) -> None:
    """Nor do its agents: its session stays, and no message arrives."""
    filters = Server.subscriptions(Topics())
    server = MqttConnection(running.url, "acm-server", tls=running.server, subscriptions=[*filters, "acm/#"])
    with server:
        assert server.wait_connected(20)
        assert codes(check_broker(config_of(running), now())) == []
        assert codes(check_access(config_of(running), now())) == []
        server.publish("acm/end", b"x")
        assert [it.topic for it in server.drain(20)] == ["acm/end"]
        assert (server.connections, server.connected) == (1, True)
