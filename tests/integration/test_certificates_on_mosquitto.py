"""Mosquitto takes the certificates that the authority issues, until the revocation list says otherwise."""

import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.contract.private_keys import private_key_to_pem
from broker.mosquitto.process import find_mosquitto
from broker.pki.authority import CertificateAuthority, create_authority, crl_path
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from tests.support.brokers import free_port
from tests.support.waiting import wait_for

CONNECT = bytes.fromhex("100d00044d5154540502003c000000")  # MQTT 5, clean start, the broker names the client
PINGREQ, PINGRESP = bytes.fromhex("c000"), bytes.fromhex("d000")
CONNACK, SUCCESS = 0x20, 0


class SecuredMosquitto:
    """Mosquitto, set up as docs/operations.md says, on loopback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        create_authority(directory / "ca", "test", datetime.now(UTC))
        self.authority = CertificateAuthority(directory / "ca", now=lambda: datetime.now(UTC))
        self.authority.write_server_certificate(["localhost", "127.0.0.1"], directory)
        self.serials = {agent: self._issue(agent) for agent in ("web-01", "web-02")}
        self._write_configuration()
        self.start()

    def _issue(self, agent: str) -> int:
        key = Ed25519PrivateKey.generate()
        certificate = self.authority.issue(agent, key.public_key(), timedelta(days=1))
        pair = private_key_to_pem(key) + certificate.public_bytes(Encoding.PEM)
        (self.directory / f"{agent}.pem").write_bytes(pair)
        return certificate.serial_number

    def _write_configuration(self) -> None:
        lines = [
            "per_listener_settings true",
            f"listener {self.port} 127.0.0.1",
            f"cafile {self.directory}/ca/ca.crt",
            f"certfile {self.directory}/server.crt",
            f"keyfile {self.directory}/server.key",
            f"crlfile {crl_path(self.directory / 'ca')}",
            "require_certificate true",
            "use_identity_as_username true",
            "use_username_as_clientid true",
            "log_type all",
            *(["user root"] if os.geteuid() == 0 else []),
        ]
        (self.directory / "mosquitto.conf").write_text("\n".join(lines))

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            argv = [find_mosquitto(), "-c", str(self.directory / "mosquitto.conf")]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for(self._listens, "mosquitto to listen")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def hang_up(self) -> None:
        before = self.log().count("Reloading config")
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.log().count("Reloading config") > before, "mosquitto to reload")

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def revoke(self, agent: str) -> None:
        entry = RevokedCertificate(self.serials[agent], datetime.now(UTC), RevocationReason.KEY_COMPROMISE)
        self.authority.write_revocation_list(lambda: [entry], crl_path(self.directory / "ca"))

    def connect(self, agent: str | None) -> ssl.SSLSocket:
        """Connect by TLS and MQTT; raises OSError when the broker does not want this client."""
        context = ssl.create_default_context(cafile=self.directory / "ca" / "ca.crt")
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        if agent is not None:
            context.load_cert_chain(self.directory / f"{agent}.pem")
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        secured = context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
        try:
            secured.do_handshake()
            secured.sendall(CONNECT)
            answer = secured.recv(256)
            if len(answer) < 4 or (answer[0], answer[3]) != (CONNACK, SUCCESS):
                raise ConnectionError(f"answered {answer!r}")
        except OSError:
            secured.close()
            raise
        return secured

    def takes(self, agent: str | None) -> bool:
        try:
            self.connect(agent).close()
        except OSError:
            return False
        return True


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[SecuredMosquitto]:
    broker = SecuredMosquitto(tmp_path)
    yield broker
    broker.stop()


def test_certificate_is_required_and_its_name_is_the_user_name(mosquitto: SecuredMosquitto) -> None:
    assert mosquitto.takes("web-01")
    assert not mosquitto.takes(None)
    assert "u'web-01'" in mosquitto.log()


def test_revoked_certificate_is_refused_after_sighup(mosquitto: SecuredMosquitto) -> None:
    with mosquitto.connect("web-01") as before:
        mosquitto.revoke("web-01")
        mosquitto.hang_up()
        assert not mosquitto.takes("web-01")
        assert mosquitto.takes("web-02")
        before.sendall(PINGREQ)
        assert before.recv(2) == PINGRESP  # what docs/operations.md says of connections that stand


def test_revoked_certificate_is_refused_after_a_restart(mosquitto: SecuredMosquitto) -> None:
    mosquitto.revoke("web-01")
    mosquitto.stop()
    mosquitto.start()
    assert not mosquitto.takes("web-01")
    assert mosquitto.takes("web-02")
