"""The directory that a secured broker runs from: Mosquitto's files, certificates, and what the servers need of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509

from broker.app.config import ServerConfig, load_config
from broker.enrolment.store import EnrolmentStore
from broker.errors import BrokerError
from broker.ledger.url import with_absolute_path
from broker.mosquitto.configuration import render_access_control_list, render_secured_configuration
from broker.pki.authority import CertificateAuthority
from broker.system.files import write_durably

__all__ = [
    "BrokerDirectory",
    "BrokerDirectoryError",
    "Written",
    "refuse_agents_name",
    "settings_for",
]


_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EVERYWHERE, _EVERYWHERE_6 = "0.0.0.0", "[::]"  # noqa: S104
_SETTINGS = "server.toml"
_DECIDED = ("ca", "ledger", "client_id", "topic_prefix")
_PUBLIC, _SECRET = 0o644, 0o600


class BrokerDirectoryError(BrokerError):
    """The directory cannot be written, or its name cannot stand in a configuration."""


@dataclass(frozen=True)
class Written:
    """What came of it: until when the certificates hold, and the configuration files that were made or left alone."""

    until: datetime
    made: tuple[Path, ...]
    kept: tuple[Path, ...]


def settings_for(directory: Path, config: Path | None, flags: Mapping[str, str | None]) -> ServerConfig:
    """Return the configuration to write the directory by: what its server.toml says, where it has one.

    With another authority or ledger the list would forget whom it names, so flags, environment or `config` that say
    otherwise are refused. Raises BrokerDirectoryError, ConfigurationError, LedgerError.
    """
    own = directory / _SETTINGS
    if not own.exists():
        return msgspec.structs.replace(load_config(config, flags), crl=None)
    said = load_config(own, {}, {})
    asked = load_config(config or own, flags)
    other = [name for name in _DECIDED if _decided(asked)[name] != _decided(said)[name]]
    if other:
        raise BrokerDirectoryError(
            f"{own} says another `{other[0]}`: leave out --config and what else says otherwise, or edit that file."
        )
    return said


def refuse_agents_name(client_id: str, enrolments: EnrolmentStore) -> None:
    """Raise BrokerDirectoryError where an agent has the name that gets all rights at the broker; LedgerError."""
    if enrolments.enrolments(client_id):
        raise BrokerDirectoryError(
            f"An agent was enrolled as {client_id!r}, so its certificate would have all rights at the broker: "
            "choose another client_id.",
            code="client_id_of_an_agent",
        )


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
        return self._directory / _SETTINGS

    @property
    def revocation_list(self) -> Path:
        """The list that the broker reads, and does not start without."""
        return Path(self._config.crl) if self._config.crl else self._directory / "crl.pem"

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
        listen = f"{self._port} {self._local_address}" if self._is_local else f"{self._port}"
        yield self._directory / "mosquitto.conf", render_secured_configuration(self._directory, listen), _PUBLIC
        rules = render_access_control_list(self._config.client_id, self._config.topic_prefix)
        yield self._directory / "acl", rules, _PUBLIC
        settings = "".join(f"{name} = {_toml(value)}\n" for name, value in self._settings().items())
        yield self.settings, settings, _SECRET  # the ledger's URL may hold a password

    def _write_certificates(self, authority: CertificateAuthority) -> datetime:
        hosts = _with_loopback(self._hosts)
        authority.write_client_certificate(self._config.client_id, self._directory, "server")
        authority.write_server_certificate(hosts, self._directory, "enroll")
        broker = authority.write_server_pem(hosts, self._directory / "broker.pem")
        write_durably(self._directory / "ca.crt", authority.certificate.encode(), _PUBLIC)
        return broker.not_valid_after_utc

    def _settings(self) -> dict[str, str]:
        """Return what the given configuration says beyond the defaults, overlaid by what is here."""
        config, place = self._config, self._directory
        default = ServerConfig()
        given = {name: getattr(config, name) for name in config.__struct_fields__}
        given = {name: value for name, value in given.items() if value != getattr(default, name)}
        if "signing_keys" in given:
            given["signing_keys"] = str(Path(given["signing_keys"]).resolve())
        url = f"mqtts://{_in_url(self._hosts[0])}:{self._port}"
        own = {
            "broker": url,
            "broker_ca": str(place / "ca.crt"),
            "broker_certificate": str(place / "server.crt"),
            "broker_key": str(place / "server.key"),
            "ledger": with_absolute_path(config.ledger),
            "ca": str(Path(config.ca).resolve()),
            "crl": str(self.revocation_list),
            "enroll_broker": url,
            "enroll_certificate": str(place / "enroll.crt"),
            "enroll_key": str(place / "enroll.key"),
        }
        return self._default_listen() | given | own

    def _default_listen(self) -> dict[str, str]:
        if self._is_local:
            return {"enroll_listen": "[::1]:8443"} if self._local_address == "::1" else {}
        everywhere = _EVERYWHERE_6 if any(":" in host for host in self._hosts) else _EVERYWHERE
        return {"enroll_listen": f"{everywhere}:8443"}

    @property
    def _local_address(self) -> str:
        return "::1" if self._hosts[0] == "::1" else "127.0.0.1"

    @property
    def _is_local(self) -> bool:
        return set(self._hosts) <= set(_LOOPBACK)

    def _earlier_hosts(self) -> list[str]:
        """Return the hosts that were given when the certificate was made: _LOOPBACK comes after them."""
        path = self._directory / "enroll.crt"  # of the same hosts; broker.pem may be Mosquitto's alone
        try:
            extensions = x509.load_pem_x509_certificate(path.read_bytes()).extensions
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise BrokerDirectoryError(f"{path} cannot be read: remove it, and say each --host again.") from error
        hosts = [str(name.value) for name in extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
        given = (hosts[:number] for number in range(len(hosts)))
        return next((some for some in given if _with_loopback(some) == hosts), hosts)


def _with_loopback(hosts: list[str]) -> list[str]:
    return [*hosts, *(host for host in _LOOPBACK if host not in hosts)]


def _decided(config: ServerConfig) -> dict[str, str]:
    return {
        "ca": str(Path(config.ca).resolve()),
        "ledger": with_absolute_path(config.ledger),
        "client_id": config.client_id,
        "topic_prefix": config.topic_prefix,
    }


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _toml(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a basic string of TOML, for printable text
