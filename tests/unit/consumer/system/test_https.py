"""What the environment says about proxies, for everything that an agent does over HTTPS."""

import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from broker.contract.artifacts import Artifact
from broker.contract.enrolment_token import EnrolmentToken
from consumer.enrolment.client import EnrolmentClient
from consumer.enrolment.keys import new_key
from consumer.enrolment.store import Enrolment
from consumer.errors import DownloadError, EnrolmentError
from consumer.settings import DownloadConfig
from consumer.system.clock import SystemClock
from consumer.system.downloads import Downloader
from consumer.system.https import https_client
from tests.support.authority import TestAuthority
from tests.support.https_server import HttpsServer
from tests.unit.consumer.enrolment.test_enrolment_directory import GRANT

CONTENT = b"interval = 5\n"
SHA256 = "0" * 64
UNUSABLE = {
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "all_proxy": "socks://127.0.0.1:1",
    "https_proxy": "http://[::1",
    "HTTPS_PROXY": "http://127.0.0.1:1",  # nothing listens there
}
NOT_PROXIED = ["127.0.0.1", "::1,127.0.0.0/8", "[::1],127.0.0.1:{port}", "fe80::1%eth0, *", "https://127.0.0.1"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    with HttpsServer.running(tmp_path_factory.mktemp("https")) as server:
        server.serve("/file", CONTENT)
        yield server


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*UNUSABLE, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def enroll(server: HttpsServer, directory: Path) -> None:
    client = EnrolmentClient(server.url(""), SystemClock(), monotonic() + 20, threading.Event())
    client.enroll(EnrolmentToken("s" * 22, "0" * 64), "web-01", new_key())


def renew(server: HttpsServer, directory: Path) -> None:
    TestAuthority().write_identity(directory, "web-01")
    (directory / "key.pem").chmod(0o600)
    client = EnrolmentClient(server.url(""), SystemClock(), monotonic() + 20, threading.Event())
    client.renew(Enrolment(directory, GRANT), new_key())


def download(server: HttpsServer, directory: Path) -> None:
    settings = DownloadConfig(ca_file=str(server.ca_file))
    artifact = Artifact(url=server.url("/file"), sha256=SHA256, size=len(CONTENT))
    Downloader(settings, SystemClock(), monotonic() + 20, threading.Event()).fetch(artifact, directory / "fetched")


@pytest.mark.parametrize("request_", [enroll, renew, download])
@pytest.mark.parametrize("variable", UNUSABLE)
def test_unusable_proxy_is_named_in_one_sentence(
    server: HttpsServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_: Callable[[HttpsServer, Path], None],
    variable: str,
) -> None:
    monkeypatch.setenv(variable, UNUSABLE[variable])
    with pytest.raises((EnrolmentError, DownloadError), match=f"through the proxy that {variable} names: "):
        request_(server, tmp_path)


@pytest.mark.parametrize("password", ["hush#1", "1#hush", "1/hush", "1?hush", "hu sh", "hush@1:x", "hush\x01", "hush["])
@pytest.mark.parametrize("user", ["http://me:", "me:"])
def test_no_part_of_a_proxys_password_is_looked_up_or_shown(
    server: HttpsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    monkeypatch.setenv("https_proxy", f"{user}{password}@[::")
    with pytest.raises(DownloadError, match="through the proxy that https_proxy names: it is not the URL") as caught:
        download(server, tmp_path)
    assert "hu" not in str(caught.value).partition("names: ")[2]


def test_proxy_without_a_host_does_not_show_the_password(
    server: HttpsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("http://me:hush", "hush://me", "http://hush:99999", "http://127.0.0.1:1#hush"):
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(DownloadError, match="https_proxy names: ") as caught:
            download(server, tmp_path)
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("no_proxy", ["", "localhost"])
def test_final_dot_of_a_host_is_not_compared_with_its_certificate(
    server: HttpsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    if no_proxy:
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", no_proxy)
    with https_client(ssl.create_default_context(cafile=server.ca_file), 10) as client:
        response = client.get(server.url("/file").replace("127.0.0.1", "localhost."))
    assert response.content == CONTENT


@pytest.mark.parametrize("hosts", NOT_PROXIED)
def test_hosts_in_no_proxy_are_reached_without_it(
    server: HttpsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", UNUSABLE["ALL_PROXY"])
    monkeypatch.setenv("NO_PROXY", hosts.format(port=server.url("").rpartition(":")[2]))
    with pytest.raises(DownloadError, match="SHA-256"):  # it was fetched
        download(server, tmp_path)


def test_other_hosts_are_reached_through_it(
    server: HttpsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", UNUSABLE["HTTPS_PROXY"])
    monkeypatch.setenv("no_proxy", "0.0.1,27.0.0.1,::1,127.0.0.1:1,10.0.0.0/8,example.org")
    with pytest.raises(DownloadError, match="through the proxy"):
        download(server, tmp_path)


def test_certificates_are_verified_by_one_rule_on_all_pythons() -> None:
    trust = ssl.create_default_context()
    trust.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN  # the default from Python 3.13 on
    with https_client(trust, 1.0):
        assert not trust.verify_flags & (ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
        assert (trust.verify_mode, trust.check_hostname) == (ssl.CERT_REQUIRED, True)
