"""The directory that a secured broker runs from: Mosquitto's files, certificates, and what the servers need of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from broker.ca import CertificateAuthority
from broker.config import ServerConfig
from broker.errors import BrokerError, LedgerError
from broker.files import write_durably
from broker.mosquitto_files import render_access_control_list, render_secured_configuration

__all__ = ["BrokerDirectory", "BrokerDirectoryError", "Written"]

_LOOPBACK = ("localhost", "127.0.0.1")
_EVERYWHERE = "0.0.0.0"  # noqa: S104
_PUBLIC, _SECRET = 0o644, 0o600


class BrokerDirectoryError(BrokerError):
    """The directory cannot be written, or its name cannot stand in a configuration."""


@dataclass(frozen=True)
class Written:
    """What came of it: until when the certificates hold, and the configuration files that were made or left alone."""

    until: datetime
    made: tuple[Path, ...]
    kept: tuple[Path, ...]


class BrokerDirectory:
    """One directory for one broker at `hosts`; without any, those that it has a certificate for, else this machine.

    All methods raise BrokerDirectoryError.
    """

    def __init__(self, directory: Path, config: ServerConfig, hosts: Sequence[str], port: int) -> None:
        self._directory = directory.resolve()
        if not str(self._directory).isprintable():
            raise BrokerDirectoryError("The directory's name has characters that no configuration can hold.")
        self._config = config
        self._hosts = list(hosts) or self._earlier_hosts() or list(_LOOPBACK)
        self._port = port

    @property
    def settings(self) -> Path:
        """The configuration of `acm server` and `acm enroll-server`."""
        return self._directory / "server.toml"

    @property
    def revocation_list(self) -> Path:
        """The list that the broker reads, and does not start without."""
        return self._directory / "crl.pem"

    def write(self, authority: CertificateAuthority) -> Written:
        """Write all but the revocation list: certificates and keys anew, configuration files where there are none.

        Raises AuthorityError, CertificateError, InvalidName and LedgerError, too.
        """
        texts = list(self._texts())
        try:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            kept = tuple(path for path, _, _ in texts if path.exists())
            until = self._write_certificates(authority)
            for path, text, mode in texts:
                if path not in kept:
                    write_durably(path, text.encode(), mode)
        except OSError as error:
            raise BrokerDirectoryError(f"{self._directory} cannot be written: {error.strerror}.") from error
        return Written(until, tuple(path for path, _, _ in texts if path not in kept), kept)

    def _texts(self) -> Iterator[tuple[Path, str, int]]:
        listen = f"{self._port} 127.0.0.1" if self._is_local else f"{self._port}"
        yield self._directory / "mosquitto.conf", render_secured_configuration(self._directory, listen), _PUBLIC
        rules = render_access_control_list(self._config.client_id, self._config.topic_prefix)
        yield self._directory / "acl", rules, _PUBLIC
        settings = "".join(f"{name} = {_toml(value)}\n" for name, value in self._settings().items())
        yield self.settings, settings, _SECRET  # the ledger's URL may hold a password

    def _write_certificates(self, authority: CertificateAuthority) -> datetime:
        hosts = [*self._hosts, *(host for host in _LOOPBACK if host not in self._hosts)]
        authority.write_client_certificate(self._config.client_id, self._directory, "server")
        authority.write_server_certificate(hosts, self._directory, "enroll")
        broker = authority.write_server_certificate(hosts, self._directory, "broker")
        write_durably(self._directory / "ca.crt", authority.certificate.encode(), _PUBLIC)
        return broker.not_valid_after_utc

    def _settings(self) -> dict[str, str]:
        config, place = self._config, self._directory
        url = f"mqtts://{_in_url(self._hosts[0])}:{self._port}"
        settings = {
            "broker": url,
            "broker_ca": str(place / "ca.crt"),
            "broker_certificate": str(place / "server.crt"),
            "broker_key": str(place / "server.key"),
            "ledger": _absolute(config.ledger),
            "ca": str(Path(config.ca).resolve()),
            "crl": str(self.revocation_list),
            "enroll_broker": url,
            "enroll_certificate": str(place / "enroll.crt"),
            "enroll_key": str(place / "enroll.key"),
        }
        if not self._is_local:
            settings["enroll_listen"] = f"{_EVERYWHERE}:8443"
        default = ServerConfig()
        names = {"client_id": config.client_id, "topic_prefix": config.topic_prefix}
        return settings | {name: value for name, value in names.items() if value != getattr(default, name)}

    @property
    def _is_local(self) -> bool:
        return set(self._hosts) <= set(_LOOPBACK)

    def _earlier_hosts(self) -> list[str]:
        """Return the hosts that were given when the certificate was made: _LOOPBACK comes after them."""
        path = self._directory / "broker.crt"
        try:
            extensions = x509.load_pem_x509_certificate(path.read_bytes()).extensions
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise BrokerDirectoryError(f"{path} cannot be read: remove it, and say each --host again.") from error
        hosts = [str(name.value) for name in extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
        while hosts and hosts[-1] in _LOOPBACK:
            hosts.pop()
        return hosts


def _absolute(ledger: str) -> str:
    try:
        url = make_url(ledger)
    except ArgumentError:
        raise LedgerError("The ledger's URL cannot be read; write sqlite:///PATH.") from None
    if url.get_backend_name() != "sqlite" or not url.database:
        return ledger
    return url.set(database=str(Path(url.database).resolve())).render_as_string(hide_password=False)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _toml(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a basic string of TOML, for printable text
