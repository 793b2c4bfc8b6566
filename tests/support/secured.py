"""A secured broker as `acm broker config` writes it: its authority, the accounts there, and ways to run it."""

import contextlib
import os
import socket
import ssl
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.broker_directory import BrokerDirectory
from broker.app.config import ServerConfig
from broker.contract.private_keys import private_key_to_pem
from broker.mosquitto.process import SecuredMosquitto
from broker.mqtt.address import TlsFiles
from broker.pki.authority import CertificateAuthority, create_authority
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from tests.support.brokers import IMAGE, ContainerBroker, docker, free_port
from tests.support.waiting import wait_for


class SecuredSite:
    """An authority and the directory of one broker for agents from anywhere; nothing runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "broker"
        self.port = free_port()
        self.url = f"mqtts://127.0.0.1:{self.port}"
        create_authority(directory / "ca", "test", datetime.now(UTC))
        self.authority = CertificateAuthority(directory / "ca", now=lambda: datetime.now(UTC))
        self.config = ServerConfig(ca=str(directory / "ca"), ledger=f"sqlite:///{directory}/ledger.db")
        self.files = BrokerDirectory(self.directory, self.config, ["127.0.0.1", "broker.example.org"], self.port)
        self.files.write(self.authority)
        self.revoke()

    @property
    def server(self) -> TlsFiles:
        return TlsFiles(self.directory / "ca.crt", self.directory / "server.crt", self.directory / "server.key")

    def identity(self, agent: str) -> TlsFiles:
        """Return the files of a new certificate for this agent."""
        key = Ed25519PrivateKey.generate()
        return self.save(self.authority.issue(agent, key.public_key(), timedelta(days=1)), key)

    def save(self, certificate: x509.Certificate, key: Ed25519PrivateKey) -> TlsFiles:
        """Return the files of a certificate, which are made."""
        stem = self.directory.parent / f"certificate-{uuid.uuid4().hex[:8]}"
        stem.with_suffix(".key").write_bytes(private_key_to_pem(key))
        stem.with_suffix(".crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        return TlsFiles(self.server.ca, stem.with_suffix(".crt"), stem.with_suffix(".key"))

    def revoke(self, *revoked: TlsFiles) -> None:
        """Write a revocation list with these certificates only."""
        serials = [x509.load_pem_x509_certificate(files.certificate.read_bytes()).serial_number for files in revoked]
        entries = [RevokedCertificate(serial, datetime.now(UTC), RevocationReason.UNSPECIFIED) for serial in serials]
        self.authority.write_revocation_list(lambda: entries, self.files.revocation_list)

    def running(self, broker_kind: Callable[[], object]) -> AbstractContextManager[object]:
        """Run the broker for the block, in a container or as a child process, as `broker_kind` (the fixture) is."""
        return self._container() if broker_kind is ContainerBroker else SecuredMosquitto(self.directory)

    @contextmanager
    def _container(self) -> Iterator[None]:
        (self.directory / "data").mkdir(exist_ok=True)
        configuration = self.directory / "container.conf"
        text = (self.directory / "mosquitto.conf").read_text()
        configuration.write_text(text + ("user root\n" if os.geteuid() == 0 else ""))
        name = f"acm-test-{uuid.uuid4().hex[:12]}"
        docker(
            *("run", "--detach", "--name", name, "--user", f"{os.geteuid()}:{os.getegid()}"),
            *("--publish", f"127.0.0.1:{self.port}:{self.port}", "--volume", f"{self.directory}:{self.directory}"),
            *(IMAGE, "mosquitto", "-c", str(configuration)),
        )
        with contextlib.ExitStack() as stack:
            stack.callback(docker, "rm", "--force", "--volumes", name)
            wait_for(self._answers, "the broker in the container to speak TLS", 60)
            yield

    def _answers(self) -> bool:
        context = ssl.create_default_context(cafile=self.server.ca)
        context.load_cert_chain(self.server.certificate, self.server.key)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain:
                context.wrap_socket(plain, server_hostname="127.0.0.1").close()
        except OSError:  # Docker's proxy takes connections before Mosquitto listens
            return False
        return True
