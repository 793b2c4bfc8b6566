"""The directory of `acm up`: everything that one machine needs to command agents, made at the first call.

ca/, broker/, ledger.db   as `acm ca init` and `acm broker config` make them, and as they can make them beforehand
agents/NAME               the state directory of an agent on this machine
run/                      who runs here (broker.app.occupancy), and the health files of the programs
log/                      the output of what runs in the background
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic

from broker.app.broker_directory import BrokerDirectory
from broker.app.config import (
    DEFAULT_API_PORT,
    DEFAULT_ENROLL_LISTEN,
    DEFAULT_ENROLL_PORT,
    ServerConfig,
    load_config,
)
from broker.app.credentials import (
    BROKER_PEM,
    open_authority,
    open_enrolments,
    open_revocation_file,
    server_certificate_files,
)
from broker.app.default_directory import settings_of
from broker.app.factories import utc_now
from broker.app.hosted_api import has_api
from broker.app.occupancy import Occupancy
from broker.app.setting_up import create_identities, has_identities, write_broker_directory
from broker.contract.topics import check_agent_name
from broker.errors import BrokerError
from broker.ledger.location import ledger_url, sqlite_file
from broker.mosquitto.process import SecuredMosquitto, find_mosquitto
from broker.mqtt.address import parse_url
from broker.pki.server_certificates import ServerCertificates
from broker.system.files import resolved
from broker.system.permissions import refuse_changeable, refuse_readable

__all__ = [
    "DEFAULT_BROKER_PORT",
    "MachineDirectory",
    "MachineDirectoryError",
    "RequestedPlace",
]


DEFAULT_BROKER_PORT = 8883
_LOOPBACK, _ANY_ADDRESS = "127.0.0.1", "0.0.0.0"  # noqa: S104
_PRIVATE = 0o700
_SECRETS = (BROKER_PEM, "server.key", "enroll.key", "api.key")
_RELIED_ON = ("mosquitto.conf", "acl", "ca.crt", "server.crt", "enroll.crt", "api.crt")
_POLL_INTERVAL_S = 0.05
_RELEASE_TIMEOUT_S = 5.0  # for a Mosquitto whose supervisor was killed, and which saves its data


class MachineDirectoryError(BrokerError):
    """The directory of `acm up` cannot be used, or not as requested."""

    code = "machine_directory_error"


@dataclass(frozen=True)
class RequestedPlace:
    """Where broker, enrolment server and API should be reached: hosts (none: this machine), ports (None: default)."""

    hosts: Sequence[str] = ()
    broker_port: int | None = None
    enroll_port: int | None = None
    api_port: int | None = None


class MachineDirectory:
    """One directory. Raises MachineDirectoryError, and ExposedFileError if others could change it."""

    def __init__(self, path: Path) -> None:
        self.path = resolved(path)
        self.broker = self.path / "broker"
        self.settings = settings_of(self.path)
        self.log = self.path / "log"
        self.occupancy = Occupancy(self.path)
        self.run = self.occupancy.directory

    @contextlib.contextmanager
    def taken(self) -> Iterator[int]:
        """Let this process run here in the block, as Occupancy.taken; makes the directory for its owner only."""
        with self._errors():
            self.path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            self._refuse_other_owner()
            refuse_changeable(self.path)
            for directory in (self.run, self.log):
                directory.mkdir(mode=_PRIVATE, exist_ok=True)
                refuse_changeable(directory)
        with self.occupancy.taken() as programs_lock:
            yield programs_lock

    def _refuse_other_owner(self) -> None:
        """Refuse what was set up for another user, such as services: files of ours in it would stop them."""
        if self.path.stat().st_uid != os.geteuid():
            raise MachineDirectoryError(
                f"{self.path} belongs to another user: run acm up as that user, or choose another --directory.",
                code="directory_of_another_user",
            )

    def prepare(self, place: RequestedPlace, tell: Callable[[str], None] = lambda _: None) -> ServerConfig:
        """Make what is missing, refuse what others could change, renew what has expired; return the configuration.

        `place` is for the first call; later ones refuse another, which the enrolled agents would not know. A ledger of
        an older version is migrated, which is reported by `tell`. Also raises MosquittoNotFound, and the errors of the
        parts that cannot be used.
        """
        find_mosquitto()
        with self._errors():
            if not self._is_complete:
                self._make_files(place)
            self._refuse_exposed()
            config = load_config(self.settings, {}, {})
            self._refuse_other(place, config)
            self._renew(config, tell)
            for name, (host, port) in _listeners(config, self.broker).items():
                _await_free(host, port, f"choose another one for the {name} in {self.broker}")
        return config

    def health(self, name: str) -> Path:
        """Return the file that a program touches while it works."""
        return self.run / f"{name}.health"

    def state_of_agent(self, agent: str) -> Path:
        """Return the state directory of an agent on this machine; raises InvalidName."""
        return self.path / "agents" / check_agent_name(agent)

    @property
    def _is_complete(self) -> bool:
        return all((self.broker / name).exists() for name in (self.settings.name, *_RELIED_ON, *_SECRETS))

    def _make_files(self, place: RequestedPlace) -> None:
        hosts, broker_port, enroll_port, api_port = place.hosts, place.broker_port, place.enroll_port, place.api_port
        if self.settings.exists():  # an earlier call was interrupted, or a file was removed
            config = load_config(self.settings, {}, {})
            hosts, broker_port = (), parse_url(config.broker).port
        else:
            config = ServerConfig(ca=str(self.path / "ca"), ledger=self._new_ledger())
            broker_port, enroll_port = broker_port or DEFAULT_BROKER_PORT, enroll_port or DEFAULT_ENROLL_PORT
            api_port = api_port or DEFAULT_API_PORT
            address = _ANY_ADDRESS if hosts else _LOOPBACK
            _await_free(address, broker_port, "choose another one with --port")
            _await_free(address, enroll_port, "choose another one with --enroll-port")
            if has_api():
                _await_free(_LOOPBACK, api_port, "choose another one with --api-port")
        if not has_identities(config):
            create_identities(config)
        ports = {"enroll_port": enroll_port or DEFAULT_ENROLL_PORT, "api_port": api_port or DEFAULT_API_PORT}
        write_broker_directory(BrokerDirectory(self.broker, config, hosts, broker_port, **ports), config)

    def _new_ledger(self) -> str:
        """Return the URL of the ledger; raises MachineDirectoryError for a path that no URL can have."""
        file = self.path / "ledger.db"
        url = f"sqlite:///{file}"
        if sqlite_file(ledger_url(url)) != file:
            raise MachineDirectoryError(
                f"{self.path} has a character that the ledger's URL cannot have, such as `?`: choose another "
                "--directory.",
                code="path_not_in_url",
            )
        return url

    def _refuse_exposed(self) -> None:
        for name in _RELIED_ON:
            refuse_changeable(self.broker / name)
        for name in _SECRETS:
            refuse_readable(self.broker / name)

    def _refuse_other(self, place: RequestedPlace, config: ServerConfig) -> None:
        enroll_port = int((config.enroll_listen or DEFAULT_ENROLL_LISTEN).rpartition(":")[2])
        broker = parse_url(config.broker)
        different = {
            "--host": place.hosts and place.hosts[0] != broker.host,
            "--port": place.broker_port not in (None, broker.port),
            "--enroll-port": place.enroll_port not in (None, enroll_port),
            "--api-port": place.api_port is not None and not config.api_listen.endswith(f":{place.api_port}"),
        }
        option = next((option for option, is_other in different.items() if is_other), None)
        if option is not None:
            raise MachineDirectoryError(
                f"{self.path} was made with another value of {option}, which others know: leave the option out, or "
                "choose another --directory.",
                code="other_place",
            )

    def _renew(self, config: ServerConfig, tell: Callable[[str], None]) -> None:
        """Renew what may have expired while nothing ran; without a current revocation list, the broker refuses all."""
        authority = open_authority(config)
        with open_enrolments(config, tell) as enrolments:
            revocations = open_revocation_file(config, authority, enrolments)
            if revocations.path.exists():
                refuse_changeable(revocations.path)
            revocations.refresh()
        ServerCertificates(server_certificate_files(config), authority, now=utc_now).renew_due()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MachineDirectoryError(
                f"{error.filename or self.path} cannot be used: {error.strerror or error}.", code="unusable_directory"
            ) from error


def _listeners(config: ServerConfig, broker: Path) -> dict[str, tuple[str, int]]:
    """Return host and port of what listens, by its name."""
    addresses = {
        "broker": SecuredMosquitto(broker).address,
        "enrolment server": config.enroll_listen or DEFAULT_ENROLL_LISTEN,
    }
    if has_api() and not config.api_is_off:
        addresses["API"] = config.api_listen
    parts = {name: address.rpartition(":") for name, address in addresses.items()}
    return {name: (host.strip("[]"), int(port)) for name, (host, _, port) in parts.items()}


def _await_free(host: str, port: int, advice: str) -> None:
    """Raise MachineDirectoryError if this program cannot listen on a port, and another does not release it soon."""
    pause, deadline = Event(), monotonic() + _RELEASE_TIMEOUT_S
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        try:
            socket.create_server((host, port), family=family).close()
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise MachineDirectoryError(
                    f"Nothing can listen on {host}, port {port}: {error.strerror}; {advice}.",
                    code="cannot_listen",
                ) from error
            if monotonic() >= deadline:
                raise MachineDirectoryError(
                    f"Port {port} on {host} is in use by another program: end that, or {advice}.", code="port_in_use"
                ) from error
        pause.wait(_POLL_INTERVAL_S)
