"""A small certificate authority, and a Mosquitto that accepts its certificates."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.contract.enrolment_token import fingerprint_of
from broker.contract.private_keys import private_key_to_pem
from broker.mosquitto.process import find_mosquitto
from tests.support.brokers import free_port, wait_for_connack
from tests.support.waiting import wait_for

_SIGNS = x509.KeyUsage(False, False, False, False, False, True, True, False, False)


class TestAuthority:
    """Signs any certificate."""

    __test__ = False

    def __init__(self, name: str = "Test CA") -> None:
        self._key = Ed25519PrivateKey.generate()
        self._name = _name(name)
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            self._name, self._name, self._key.public_key(), 1, now - timedelta(hours=1), now + timedelta(days=1)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_SIGNS, critical=True)
        builder = self._with_key_identifiers(builder, self._key.public_key())
        self.certificate = builder.sign(self._key, None)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.certificate.public_bytes(Encoding.DER))

    def issue(
        self, name: str, public_key: object, *, host: str | None = None, begins_s: float = -3600, life_s: float = 3600
    ) -> str:
        """Return a certificate that is valid from `begins_s` to `life_s` seconds from now, for this host."""
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            self._name,
            _name(name),
            public_key,  # type: ignore[arg-type]
            x509.random_serial_number(),
            now + timedelta(seconds=begins_s),
            now + timedelta(seconds=life_s),
        )
        builder = self._with_key_identifiers(builder, public_key)
        if host is not None:
            is_name = host[-1].isalpha()
            name_of_host = x509.DNSName(host) if is_name else x509.IPAddress(ip_address(host))
            builder = builder.add_extension(x509.SubjectAlternativeName([name_of_host]), False)
        return builder.sign(self._key, None).public_bytes(Encoding.PEM).decode()

    def _with_key_identifiers(self, builder: x509.CertificateBuilder, public_key: object) -> x509.CertificateBuilder:
        """Add the extensions that Python 3.13 requires of every certificate (RFC 5280 section 4.2.1.1)."""
        own = x509.SubjectKeyIdentifier.from_public_key(public_key)  # type: ignore[arg-type]
        issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(own, critical=False).add_extension(issuers, critical=False)

    def write_identity(self, directory: Path, name: str, **options: Any) -> None:
        """Write ca.pem, certificate.pem and key.pem; `options` are those of `issue`."""
        key = Ed25519PrivateKey.generate()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ca.pem").write_text(self.pem)
        (directory / "certificate.pem").write_text(self.issue(name, key.public_key(), **options))
        (directory / "key.pem").write_bytes(private_key_to_pem(key))


class TlsBroker:
    """Mosquitto with a TLS listener for agents, which requires certificates, and a plain one for the server."""

    def __init__(self, authority: TestAuthority, directory: Path, host: str = "127.0.0.1") -> None:
        authority.write_identity(directory, "broker", host=host)
        self.port, self.tls_port = free_port(), free_port()
        self.url, self.tls_url = f"mqtt://127.0.0.1:{self.port}", f"mqtts://127.0.0.1:{self.tls_port}"
        self._configuration = directory / "mosquitto.conf"
        self._configuration.write_text(
            "per_listener_settings true\nmax_queued_messages 0\nmax_packet_size 266240\nset_tcp_nodelay true\n"
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"listener {self.tls_port} 127.0.0.1\nallow_anonymous false\nrequire_certificate true\n"
            "use_identity_as_username true\nuse_username_as_clientid true\n"
            f"cafile {directory}/ca.pem\ncertfile {directory}/certificate.pem\nkeyfile {directory}/key.pem\n"
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        self._log = directory / "mosquitto.log"

    @contextmanager
    def running(self) -> Iterator["TlsBroker"]:
        with self._log.open("ab") as log:
            process = subprocess.Popen([find_mosquitto(), "-c", str(self._configuration)], stdout=log, stderr=log)
        try:
            wait_for(lambda: process.poll() is None, f"mosquitto to run; see {self._log}", 5)
            wait_for_connack(self.port)
            yield self
        finally:
            process.terminate()
            process.wait(10)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
