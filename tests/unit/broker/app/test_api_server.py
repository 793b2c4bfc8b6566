"""The API over TLS, with a certificate of the authority, and with those of its clients."""

import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.api_server import ApiServer
from broker.app.config import ServerConfig, ServerConfigurationError, load_config
from broker.cli.exit_codes import AcmExitCode
from broker.contract.private_keys import private_key_to_pem
from broker.errors import ExposedFileError
from broker.pki.authority import CertificateAuthority, create_authority
from broker.system.key_pairs import write_pair
from broker.web.errors import WebServerError
from tests.support.brokers import free_port
from tests.support.cli import acm
from tests.support.errors import raises_code
from tests.support.places import Place
from tests.support.threads import on_a_thread
from tests.support.waiting import wait_for


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    create_authority(tmp_path / "ca", "test", datetime.now(UTC))
    return CertificateAuthority(tmp_path / "ca", now=lambda: datetime.now(UTC))


@pytest.fixture
def config(tmp_path: Path, authority: CertificateAuthority) -> ServerConfig:
    authority.write_server_certificate(["localhost", "127.0.0.1"], tmp_path, "api")
    return ServerConfig(
        ledger=f"sqlite:///{tmp_path}/ledger.db",
        ca=str(tmp_path / "ca"),
        api_listen=f"127.0.0.1:{free_port()}",
        api_certificate=f"{tmp_path}/api.crt",
        api_key=f"{tmp_path}/api.key",
        broker_ca=f"{tmp_path}/ca/ca.crt",
    )


def shown_certificate(config: ServerConfig, tmp_path: Path) -> bytes | None:
    """Return the certificate that the API shows, verified; None while it does not answer."""
    context = ssl.create_default_context(cafile=tmp_path / "ca" / "ca.crt")
    host, _, port = config.api_listen.rpartition(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return secured.getpeercert(binary_form=True)
    except ConnectionError:
        return None


def test_renewed_certificate_is_used_without_a_restart(
    config: ServerConfig, authority: CertificateAuthority, tmp_path: Path
) -> None:
    context = ssl.create_default_context(cafile=tmp_path / "ca" / "ca.crt")
    with on_a_thread(ApiServer(config)):
        first = wait_for(lambda: shown_certificate(config, tmp_path), "the API to speak TLS")
        url = f"https://{config.api_listen}/v1/me"
        assert httpx.get(url, verify=context, trust_env=False).json()["code"] == "missing_credential"
        authority.write_server_certificate(["localhost", "127.0.0.1"], tmp_path, "api")
        wait_for(lambda: shown_certificate(config, tmp_path) not in (None, first), "the new certificate")


def test_certificate_that_cannot_be_used_is_refused(config: ServerConfig, tmp_path: Path) -> None:
    (tmp_path / "api.crt").write_text("none")
    with raises_code(WebServerError, "unusable_server_certificate"):
        ApiServer(config)


def test_key_that_others_can_read_is_refused(config: ServerConfig, tmp_path: Path) -> None:
    (tmp_path / "api.key").chmod(0o644)
    with pytest.raises(ExposedFileError):
        ApiServer(config)


@pytest.mark.parametrize("member", ["api_certificate", "api_key"])
def test_certificate_without_a_key_is_refused(member: str) -> None:
    with raises_code(ServerConfigurationError, "incomplete_api_tls"):
        load_config(None, {member: "file"}, {})


def client(config: ServerConfig, *pair: Path) -> httpx.Client:
    """Return a client that trusts the authority, and shows a certificate."""
    context = ssl.create_default_context(cafile=config.broker_ca)
    if pair:
        context.load_cert_chain(*pair)
    return httpx.Client(base_url=f"https://{config.api_listen}", verify=context, trust_env=False, timeout=60)


def acm_of(config: ServerConfig, *words: str) -> Any:
    done = acm(config.ledger, "api", *words, ACM_CA=config.ca)
    assert done.exit_code == 0, done.output
    return done.stdout


def assert_acm_works_with_a_certificate(config: ServerConfig, directory: Path) -> None:
    """Assert that a context, options and variables take alice's certificate; and a context keeps paths alone."""
    url, pair = f"https://{config.api_listen}", (str(directory / "alice.crt"), str(directory / "alice.key"))
    home = {"XDG_CONFIG_HOME": str(directory / "config"), "ACM_API_CA": config.broker_ca}
    files = ("--certificate", pair[0], "--key", pair[1], "--ca", config.broker_ca)
    assert Place(**home).acm("context", "add", "prod", "--server", url, *files).exit_code == 0
    kept = (directory / "config/acm/contexts.toml").read_text()
    assert (str(directory / "alice.key") in kept, "token =" in kept, "PRIVATE KEY" in kept) == (True, False, False)
    listed = Place(**home).acm("agents", "--context", "prod", "--json")
    assert (listed.exit_code, listed.json) == (0, [])
    named = ("--server", url, "--client-certificate", pair[0], "--client-key", pair[1])
    assert Place(**home).acm("agents", *named, "--json") == listed
    variables = {"ACM_SERVER": url, "ACM_CLIENT_CERTIFICATE": pair[0], "ACM_CLIENT_KEY": pair[1]}
    assert Place(**home, **variables).acm("agents", "--json") == listed
    assert Place(**home, **variables).acm("blob", "list").code == "forbidden"


def test_operator_is_known_by_a_certificate_until_it_is_revoked(config: ServerConfig, tmp_path: Path) -> None:
    words = ("certificate", "create", "alice", "--role", "viewer", "--group", "edge", "--out", str(tmp_path))
    made = json.loads(acm_of(config, *words, "--json"))
    assert (tmp_path / "alice.key").stat().st_mode & 0o777 == 0o600
    with on_a_thread(ApiServer(config)), client(config, tmp_path / "alice.crt", tmp_path / "alice.key") as alice:
        wait_for(lambda: shown_certificate(config, tmp_path), "the API to speak TLS")
        assert alice.get("/v1/me").json() == {"name": "cert:alice", "role": "viewer", "groups": ["edge"]}
        assert alice.get("/v1/audit-log").json()["code"] == "forbidden"
        assert_acm_works_with_a_certificate(config, tmp_path)
        token = acm_of(config, "token", "create", "alice", "--role", "admin").strip()
        assert alice.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).json()["name"] == "alice"
        assert alice.get("/v1/me", headers={"Authorization": "Bearer x"}).json()["code"] == "unknown_credential"
        (listed,) = json.loads(acm_of(config, "certificate", "list", "--json"))
        assert (listed["id"], listed["serial"], listed["principal"]) == (made["id"], made["serial"], "cert:alice")
        acm_of(config, "certificate", "revoke", made["id"])
        assert alice.get("/v1/me").json()["code"] == "credential_revoked"


def test_certificates_of_agents_and_servers_are_of_no_operator(
    config: ServerConfig, authority: CertificateAuthority, tmp_path: Path
) -> None:
    key = Ed25519PrivateKey.generate()
    agent = authority.issue("web-01", key.public_key(), timedelta(days=1))
    write_pair(tmp_path / "a.crt", agent.public_bytes(Encoding.PEM), tmp_path / "a.key", private_key_to_pem(key))
    authority.write_client_certificate("acm-server", tmp_path, "s")
    authority.write_operator_certificate("forgotten", tmp_path, timedelta(days=1))
    acm_of(config, "certificate", "create", "alice", "--role", "admin", "--out", str(tmp_path))
    with on_a_thread(ApiServer(config)):
        wait_for(lambda: shown_certificate(config, tmp_path), "the API to speak TLS")
        for name in ("a", "s", "forgotten"):
            with client(config, tmp_path / f"{name}.crt", tmp_path / f"{name}.key") as other:
                answer = other.get("/v1/me")
            assert (answer.status_code, answer.json()["code"]) == (401, "unknown_credential")


def test_certificate_of_another_authority_ends_the_connection(config: ServerConfig, tmp_path: Path) -> None:
    create_authority(tmp_path / "other", "test", datetime.now(UTC))
    other = CertificateAuthority(tmp_path / "other", now=lambda: datetime.now(UTC))
    other.write_operator_certificate("alice", tmp_path, timedelta(days=1))
    with on_a_thread(ApiServer(config)), client(config, tmp_path / "alice.crt", tmp_path / "alice.key") as stranger:
        wait_for(lambda: shown_certificate(config, tmp_path), "the API to speak TLS")
        with pytest.raises(httpx.TransportError):
            stranger.get("/v1/me")
        variables = {"ACM_CLIENT_CERTIFICATE": f"{tmp_path}/alice.crt", "ACM_CLIENT_KEY": f"{tmp_path}/alice.key"}
        place = Place(ACM_SERVER=f"https://{config.api_listen}", ACM_API_CA=config.broker_ca, **variables)
        refused = place.acm("agents")
        assert (refused.exit_code, "is your certificate" in refused.message) == (AcmExitCode.API_UNREACHABLE, True)
