"""The directory of a secured broker: Mosquitto's configuration, certificates, and the servers' settings for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.config import (
    DEFAULT_API_LISTEN,
    DEFAULT_API_PORT,
    DEFAULT_ENROLL_LISTEN,
    DEFAULT_ENROLL_PORT,
    OUTSIDE_OF_SECTIONS,
    ServerConfig,
    load_config,
)
from broker.app.credentials import BROKER_PEM
from broker.enrolment.store import EnrolmentStore
from broker.errors import BrokerError
from broker.ledger.location import with_absolute_path
from broker.mosquitto.configuration import render_access_control_list, render_secured_configuration
from broker.mqtt.address import host_in_url
from broker.pki.authority import CertificateAuthority
from broker.system.files import resolved, write_durably
from broker.text import toml_string

__all__ = [
    "LOOPBACK_HOSTS",
    "BrokerDirectory",
    "BrokerDirectoryError",
    "WrittenFiles",
    "refuse_name_of_agent",
    "settings_for",
    "write_trusted",
]


LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
"""What names this machine only."""

_ANY_IPV4, _ANY_ADDRESS = "0.0.0.0", "[::]"  # noqa: S104
_SETTINGS = "server.toml"
_FIXED = ("ca", "ledger", "client_id", "topic_prefix")
_PUBLIC, _SECRET = 0o644, 0o600


class BrokerDirectoryError(BrokerError):
    """The directory of a broker cannot be written or used."""

    code = "broker_directory_error"


@dataclass(frozen=True)
class WrittenFiles:
    """The expiry of the certificates, and the configuration files that were created or kept."""

    until: datetime
    made: tuple[Path, ...]
    kept: tuple[Path, ...]


def settings_for(directory: Path, config: Path | None, flags: Mapping[str, str | None]) -> ServerConfig:
    """Return the configuration of the directory: its server.toml if it has one, else `config` and `flags`.

    With another authority or ledger the revocation list would lose entries, so flags, environment or `config` that
    contradict server.toml are refused. Raises BrokerDirectoryError, ServerConfigurationError and LedgerError.
    """
    own = directory / _SETTINGS
    if not own.exists():
        return msgspec.structs.replace(load_config(config, flags), crl=None)
    existing = load_config(own, {}, {})
    requested = load_config(config or own, flags)
    other = [name for name in _FIXED if _fixed(requested)[name] != _fixed(existing)[name]]
    if other:
        raise BrokerDirectoryError(
            f"{own} has another `{other[0]}`: leave out --config, the option or the environment variable that "
            "sets it, or edit that file.",
            code="contradicting_settings",
        )
    return existing


def refuse_name_of_agent(client_id: str, enrolments: EnrolmentStore) -> None:
    """Raise BrokerDirectoryError if an agent has the name that gets all rights at the broker; raises LedgerError."""
    if enrolments.enrolments(client_id):
        raise BrokerDirectoryError(
            f"An agent was enrolled as {client_id!r}, so its certificate would have all rights at the broker: "
            "choose another client_id.",
            code="client_id_of_an_agent",
        )


def write_trusted(path: Path, trusted: str, former: str = "") -> bool:
    """Write the authorities to trust (PEM) to a file of the broker and the servers; other ones there are kept.

    `former` is no longer trusted. Returns False, and changes nothing, if the file has none of these authorities. Raises
    BrokerDirectoryError.
    """
    try:
        present = x509.load_pem_x509_certificates(path.read_bytes())
        ours = x509.load_pem_x509_certificates(trusted.encode())
        left = x509.load_pem_x509_certificates(former.encode()) if former else []
        if not {*present} & {*ours, *left}:
            return False
        kept = [certificate for certificate in present if certificate not in (*ours, *left)]
        content = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (*ours, *kept))
        write_durably(path, content, _PUBLIC)
    except (OSError, ValueError) as error:
        raise BrokerDirectoryError(f"{path} cannot be written: {error}.", code="unwritable_directory") from error
    return True


class BrokerDirectory:
    """The directory of one broker, reached at `hosts` (default: those of its certificate, else only this machine).

    All methods raise BrokerDirectoryError.
    """

    def __init__(
        self,
        directory: Path,
        config: ServerConfig,
        hosts: Sequence[str],
        port: int,
        *,
        enroll_port: int = DEFAULT_ENROLL_PORT,
        api_port: int = DEFAULT_API_PORT,
    ) -> None:
        self._directory = resolved(directory)
        if not str(self._directory).isprintable():
            raise BrokerDirectoryError(
                "The path has characters that cannot be written to mosquitto.conf.", code="unprintable_path"
            )
        self._config = config
        self._hosts = list(hosts) or self._certified_hosts() or list(LOOPBACK_HOSTS)
        self._port = port
        self._enroll_port = enroll_port
        self._api_port = api_port

    @property
    def settings(self) -> Path:
        """The configuration file of `acm server` and `acm enroll-server`."""
        return self._directory / _SETTINGS

    @property
    def revocation_list(self) -> Path:
        """The revocation list. The broker reads it, and does not start without it."""
        return Path(self._config.crl) if self._config.crl else self._directory / "crl.pem"

    def write(self, authority: CertificateAuthority) -> WrittenFiles:
        """Write new certificates and keys, and configuration files that do not exist; not the revocation list.

        Raises AuthorityError, CertificateError, InvalidName and LedgerError, too.
        """
        texts = list(self._texts())
        try:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            kept = tuple(path for path, _, _ in texts if path.exists())
            until = self._write_certificates(authority)
            for path, text, mode in reversed(texts):  # the settings first: what they say, a repeated call can follow
                if path not in kept:
                    write_durably(path, text.encode(), mode)
        except OSError as error:
            raise BrokerDirectoryError(
                f"{self._directory} cannot be written: {error.strerror}.", code="unwritable_directory"
            ) from error
        return WrittenFiles(until, tuple(path for path, _, _ in texts if path not in kept), kept)

    def _texts(self) -> Iterator[tuple[Path, str, int]]:
        listen = f"{self._port} {self._local_address}" if self._is_local else f"{self._port}"
        yield self._directory / "mosquitto.conf", render_secured_configuration(self._directory, listen), _PUBLIC
        rules = render_access_control_list(self._config.client_id, self._config.topic_prefix)
        yield self._directory / "acl", rules, _PUBLIC
        settings = "".join(f"{name} = {toml_string(value)}\n" for name, value in self._settings().items())
        if self._config.api_oidc is not None:
            settings += self._config.api_oidc.toml()
        yield self.settings, settings, _SECRET  # the ledger's URL may have a password

    def _write_certificates(self, authority: CertificateAuthority) -> datetime:
        hosts = _with_loopback(self._hosts)
        authority.write_client_certificate(self._config.client_id, self._directory, "server")
        authority.write_server_certificate(hosts, self._directory, "enroll")
        authority.write_server_certificate(hosts, self._directory, "api")
        broker = authority.write_server_pem(hosts, self._directory / BROKER_PEM)
        write_durably(self._directory / "ca.crt", authority.trusted.encode(), _PUBLIC)
        return broker.not_valid_after_utc

    def _settings(self) -> dict[str, str]:
        """Return the given settings that are not defaults, without sections, overridden by those of this directory."""
        config, directory = self._config, self._directory
        default = ServerConfig()
        given = {name: getattr(config, name) for name in OUTSIDE_OF_SECTIONS}
        given = {name: value for name, value in given.items() if value != getattr(default, name)}
        if "signing_keys" in given:
            given["signing_keys"] = str(resolved(Path(given["signing_keys"])))
        url = f"mqtts://{host_in_url(self._hosts[0])}:{self._port}"
        own = {
            "broker": url,
            "broker_ca": str(directory / "ca.crt"),
            "broker_certificate": str(directory / "server.crt"),
            "broker_key": str(directory / "server.key"),
            "ledger": with_absolute_path(config.ledger),
            "ca": str(resolved(Path(config.ca))),
            "crl": str(self.revocation_list),
            "enroll_broker": url,
            "enroll_certificate": str(directory / "enroll.crt"),
            "enroll_key": str(directory / "enroll.key"),
            "api_certificate": str(directory / "api.crt"),
            "api_key": str(directory / "api.key"),
        }
        return self._default_listen() | self._default_api() | given | own

    def _default_listen(self) -> dict[str, str]:
        if self._is_local:
            listen = f"{host_in_url(self._local_address)}:{self._enroll_port}"
            return {} if listen == DEFAULT_ENROLL_LISTEN else {"enroll_listen": listen}
        address = _ANY_ADDRESS if any(":" in host for host in self._hosts) else _ANY_IPV4
        return {"enroll_listen": f"{address}:{self._enroll_port}"}

    def _default_api(self) -> dict[str, str]:
        listen = f"{host_in_url(self._local_address)}:{self._api_port}"
        return {} if listen == DEFAULT_API_LISTEN else {"api_listen": listen}

    @property
    def _local_address(self) -> str:
        return "::1" if self._hosts[0] == "::1" else "127.0.0.1"

    @property
    def _is_local(self) -> bool:
        return set(self._hosts) <= set(LOOPBACK_HOSTS)

    def _certified_hosts(self) -> list[str]:
        """Return the hosts of the existing certificate, without those of LOOPBACK_HOSTS that were added to them."""
        path = self._directory / "enroll.crt"  # same hosts; broker.pem may be readable by Mosquitto's user only
        try:
            extensions = x509.load_pem_x509_certificate(path.read_bytes()).extensions
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise BrokerDirectoryError(
                f"{path} cannot be read: delete it, and give each --host again.", code="unreadable_certificate"
            ) from error
        hosts = [str(name.value) for name in extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
        given = (hosts[:number] for number in range(len(hosts)))
        return next((candidate for candidate in given if _with_loopback(candidate) == hosts), hosts)


def _with_loopback(hosts: list[str]) -> list[str]:
    return [*hosts, *(host for host in LOOPBACK_HOSTS if host not in hosts)]


def _fixed(config: ServerConfig) -> dict[str, str]:
    return {
        "ca": str(resolved(Path(config.ca))),
        "ledger": with_absolute_path(config.ledger),
        "client_id": config.client_id,
        "topic_prefix": config.topic_prefix,
    }
