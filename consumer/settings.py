"""The sections of the agent's configuration, typed and checked."""

import contextlib
import ipaddress
import math
import os
import pwd
import re
import resource
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import msgspec

from broker.contract.fields import FileName
from broker.contract.secrets import MASK, mask_url_passwords
from broker.contract.topics import InvalidName, Topics, check_agent_name
from broker.mqtt.address import MqttError, parse_url
from broker.tracing.port import Traces
from consumer.errors import ConfigurationError

__all__ = [
    "ActiveResponseConfig",
    "AgentConfig",
    "CentralizedConfig",
    "Confinement",
    "DownloadConfig",
    "Secret",
    "ServiceConfig",
    "Syntax",
    "UpgradeConfig",
    "is_unit_name",
]


Syntax = Literal["toml", "yaml", "json", "jsonc", "json-lines", "none"]
"""What a file is read as before it becomes active: `jsonc` is JSON with comments and trailing commas, `json-lines` one
JSON value in each line; `none` is not read."""


class ServiceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The managed service. kind `child` needs `argv`, kind `systemd` needs `unit`.

    A service that ends within `settle_s` seconds of its start counts as not started. `stop_grace_s` is the time between
    TERM and KILL for a child; a unit has its own TimeoutStopSec=.
    """

    kind: Literal["none", "child", "systemd"] = "none"
    argv: tuple[str, ...] = ()
    unit: str | None = None
    stop_grace_s: float = 10.0
    settle_s: float = 1.0


class DownloadConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How files are downloaded. `ca_file` replaces the system's authorities; `max_bytes` bounds one file."""

    ca_file: str | None = None
    max_bytes: int = 1 << 30


class ActiveResponseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which scripts may run. Without `directory` and `allow_list`, those shipped with the agent.

    `repeated_offenders` are minutes: the first replaces the timeout of a key's 2nd offence, the second that of its 3rd,
    and so on; the last applies to all later ones. `script_deadline_s` bounds one run of a script. No script may act on
    `protected_addresses` (addresses, networks, host names) and `protected_accounts`, in addition to the agent's own.
    """

    directory: str | None = None
    allow_list: str | None = None
    repeated_offenders: tuple[float, ...] = ()
    script_deadline_s: float = 10.0
    protected_addresses: tuple[str, ...] = ()
    protected_accounts: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise ConfigurationError if the values are not valid together."""
        if (self.directory is None) != (self.allow_list is None):
            raise ConfigurationError(
                "active_response.directory and active_response.allow_list must be set together.",
                code="invalid_active_response",
            )
        if len(self.repeated_offenders) > 5:
            raise ConfigurationError(
                "active_response.repeated_offenders has more than 5 numbers of minutes.", code="invalid_active_response"
            )
        if not all(
            number > 0 and math.isfinite(number) for number in (*self.repeated_offenders, self.script_deadline_s)
        ):
            raise ConfigurationError(
                "active_response.repeated_offenders and active_response.script_deadline_s must be greater than 0.",
                code="invalid_active_response",
            )
        for text in self.protected_addresses:
            if not _may_name_addresses(text):
                raise ConfigurationError(
                    f"active_response.protected_addresses has {text!r}, which protects nothing: each entry is one "
                    "address, network (ADDRESS/LENGTH) or host name.",
                    code="invalid_active_response",
                )


def _may_name_addresses(text: str) -> bool:
    """Return whether it is an address, a network, or possibly a host name."""
    bare = re.sub(r"[\[\]]|%[^/]*", "", text)
    for read in (lambda: ipaddress.ip_network(bare, strict=False), lambda: socket.inet_aton(bare)):
        with contextlib.suppress(ValueError, OSError):
            read()
            return True
    return re.fullmatch(r"(?=.*[^0-9.])[^\s,;:/*!]+", bare) is not None


class UpgradeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the agent upgrades itself. `acm-agent install` creates `root`; `public_keys` are minisign keys.

    A package must be of the product `name`. Its self-test may take `self_test_s` seconds; the new version has `watch_s`
    seconds to prove itself. `keep` releases stay on the disk.
    """

    root: str | None = None
    public_keys: tuple[str, ...] = ()
    name: str = "agent-command-manager"
    self_test_s: float = 30.0
    watch_s: float = 60.0
    keep: int = 3


class CentralizedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where generations are stored, and the programs that validate them.

    In `check`, `reload_command` and `health_check` the texts `{directory}` and `{file}` stand for the paths of the
    generation and of its single file. `check` validates the files before they become active; `health_check` runs
    repeatedly afterwards and must succeed within `grace_s` seconds. It is also a failure if the managed service ends
    within that time. `keep` older generations remain on the disk. Default of `directory`: below the state directory.
    `syntax` is the syntax of files by the ending of their names, in addition to `.toml`, `.yaml`, `.yml` and `.json`.
    """

    directory: str | None = None
    file: FileName = "config"
    check: tuple[str, ...] = ()
    reload: Literal["none", "signal", "command", "restart"] = "none"
    reload_signal: str = "HUP"
    reload_command: tuple[str, ...] = ()
    health_check: tuple[str, ...] = ()
    grace_s: float = 5.0
    keep: int = 3
    syntax: Mapping[str, Syntax] = {}

    @property
    def signal_number(self) -> signal.Signals:
        """The signal that `reload_signal` names, with or without SIG; raises KeyError for an unknown name."""
        return signal.Signals[f"SIG{self.reload_signal.upper().removeprefix('SIG')}"]

    def verify(self, *, has_service: bool) -> None:
        """Raise ConfigurationError if the values are not valid together."""
        if self.reload in ("signal", "restart") and not has_service:
            raise ConfigurationError(
                f"configuration.reload is {self.reload!r}, but the agent manages no service; configure [service].",
                code="invalid_centralized_configuration",
            )
        if self.reload == "command" and not self.reload_command:
            raise ConfigurationError(
                "configuration.reload is 'command', but configuration.reload_command is empty; set the program to run.",
                code="invalid_centralized_configuration",
            )
        if not (self.grace_s > 0 and math.isfinite(self.grace_s)) or self.keep < 1:
            raise ConfigurationError(
                "configuration.grace_s must be greater than 0, and configuration.keep at least 1.",
                code="invalid_centralized_configuration",
            )
        if "" in self.syntax:
            raise ConfigurationError(
                "configuration.syntax has an empty key; write the ending of a file's name, as in '.json'.",
                code="invalid_centralized_configuration",
            )
        try:
            _ = self.signal_number
        except KeyError:
            raise ConfigurationError(
                f"configuration.reload_signal is {self.reload_signal!r}, which is not a signal; write HUP or USR1.",
                code="invalid_centralized_configuration",
            ) from None


class Confinement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[programs]`: limits of each process that a handler starts.

    `memory_bytes` bounds its writable memory (RLIMIT_DATA), `file_bytes` each file that it writes, `open_files` its
    descriptors. `processes` bounds the processes and threads of its user on the whole machine (RLIMIT_NPROC); the
    kernel does not apply it to root. Core dumps are off. `user` is the account it runs as, if the agent runs as root.
    """

    memory_bytes: int = 2 << 30
    file_bytes: int = 1 << 30
    open_files: int = 1024
    processes: int = 4096
    user: str | None = None

    def check(self) -> None:
        """Raise ConfigurationError if the limits cannot be applied on this machine."""
        if min(self.memory_bytes, self.file_bytes, self.open_files, self.processes) < 1:
            raise ConfigurationError(
                "programs.memory_bytes, file_bytes, open_files and processes must be greater than 0.",
                code="invalid_programs",
            )
        if self.user is None:
            return
        if os.geteuid() != 0:
            raise ConfigurationError(
                f"programs.user is {self.user!r}, but the agent does not run as root and cannot become another user; "
                "remove programs.user, or run the agent as root.",
                code="invalid_programs",
            )
        if self._account(self.user).pw_uid == 0:
            raise ConfigurationError(
                "programs.user is an account of root; name one without privileges, for example 'nobody'.",
                code="invalid_programs",
            )

    def as_agent(self) -> Self:
        """Return the same limits for a program that needs the agent's own privileges."""
        return msgspec.structs.replace(self, user=None)

    @property
    def limits(self) -> dict[int, int]:
        """The limits by resource number, as setrlimit(2) takes them."""
        return {
            resource.RLIMIT_DATA: self.memory_bytes,
            resource.RLIMIT_FSIZE: self.file_bytes,
            resource.RLIMIT_NOFILE: self.open_files,
            resource.RLIMIT_NPROC: self.processes,
            resource.RLIMIT_CORE: 0,
        }

    def account(self) -> pwd.struct_passwd | None:
        """Return the account to run as, or None for the agent's own; raises ConfigurationError."""
        return None if self.user is None else self._account(self.user)

    @staticmethod
    def _account(name: str) -> pwd.struct_passwd:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            raise ConfigurationError(
                f"programs.user is {name[:80]!r}, which is not a user of this machine.", code="invalid_programs"
            ) from None


class Secret(str):
    """A text that is masked when shown: a URL shows no password, any other text shows nothing.

    msgspec encodes it only with an `enc_hook`, so it is never written by accident.
    """

    __slots__ = ()

    @property
    def masked(self) -> str:
        """The text with its secret part masked."""
        text = self[:]
        return mask_url_passwords(text) if "://" in text else MASK

    def __repr__(self) -> str:
        return repr(self.masked)

    def __str__(self) -> str:
        return self.masked


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The agent's configuration. Durations are in seconds.

    `metrics_listen` is the loopback address, HOST:PORT, at which it serves its metrics (None: nowhere). With `traces`
    it exports spans of the commands that are traced, to where OTEL_* in the environment says.
    """

    agent: str
    broker: Secret
    state: str
    accept_unsigned: bool = False
    topic_prefix: str = "acm"
    default_timeout_s: float = 60.0
    kill_grace_s: float = 5.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_listen: str | None = None
    traces: Traces = "off"
    service: ServiceConfig = ServiceConfig()
    download: DownloadConfig = DownloadConfig()
    active_response: ActiveResponseConfig = ActiveResponseConfig()
    configuration: CentralizedConfig = CentralizedConfig()
    upgrade: UpgradeConfig = UpgradeConfig()
    programs: Confinement = Confinement()

    @property
    def configuration_root(self) -> Path:
        """The directory of the centralized configuration's generations."""
        return Path(self.configuration.directory or Path(self.state, "configuration"))

    def check(self) -> None:
        """Raise ConfigurationError if the values are not valid together."""
        try:
            check_agent_name(self.agent)
            Topics(self.topic_prefix)
            parse_url(self.broker)
        except InvalidName as error:
            raise ConfigurationError(str(error), code="invalid_name") from error
        except MqttError as error:
            raise ConfigurationError(str(error), code="invalid_broker") from error
        service = self.service
        durations = (self.default_timeout_s, self.kill_grace_s, service.stop_grace_s, service.settle_s)
        if not all(seconds > 0 and math.isfinite(seconds) for seconds in durations):
            raise ConfigurationError(
                "default_timeout_s, kill_grace_s, stop_grace_s and settle_s must be greater than 0.",
                code="invalid_duration",
            )
        if service.kind == "child" and not service.argv:
            raise ConfigurationError(
                "service.kind is 'child', but service.argv is empty; set the program to run.", code="invalid_service"
            )
        if service.kind == "systemd" and not service.unit:
            raise ConfigurationError(
                "service.kind is 'systemd', but service.unit is missing; set the unit.", code="invalid_service"
            )
        if self.metrics_listen is not None:
            _check_metrics(self.metrics_listen)
        self.active_response.check()
        if service.unit is not None and not is_unit_name(service.unit):
            raise ConfigurationError(
                f"service.unit is {service.unit[:80]!r}; it must be the full name of a service, for example "
                "'sensor.service' or 'sensor@1.service'.",
                code="invalid_service",
            )
        self.configuration.verify(has_service=service.kind != "none")
        _check_upgrade(self.upgrade)
        self.programs.check()


def _check_metrics(listen: str) -> None:
    from broker.web.addresses import host_and_port, is_loopback

    address = host_and_port(listen)
    if address is None or not is_loopback(address[0]):
        raise ConfigurationError(
            f"metrics_listen is {listen[:80]!r}; write a port of this machine's loopback address, as in "
            "127.0.0.1:9445: metrics have no TLS.",
            code="invalid_metrics_listen",
        )


def _check_upgrade(upgrade: UpgradeConfig) -> None:
    if not all(seconds > 0 and math.isfinite(seconds) for seconds in (upgrade.self_test_s, upgrade.watch_s)):
        raise ConfigurationError(
            "upgrade.self_test_s and upgrade.watch_s must be greater than 0.", code="invalid_upgrade"
        )
    if upgrade.root is not None and not Path(upgrade.root).is_absolute():
        raise ConfigurationError(f"upgrade.root is {upgrade.root!r}; write an absolute path.", code="invalid_upgrade")
    from broker.release.minisign import MinisignError, PublicKey  # loads cryptography, which a plug-in does not need

    for key in upgrade.public_keys:
        try:
            PublicKey.parse(key)
        except MinisignError as error:
            raise ConfigurationError(f"upgrade.public_keys: {error}", code="invalid_upgrade") from error


_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.service")
_MAX_NAME_LENGTH = 255


def is_unit_name(name: str) -> bool:
    """Whether this is the full name of a service unit (systemd.unit(5)), but not of a template."""
    return len(name) <= _MAX_NAME_LENGTH and _UNIT_NAME.fullmatch(name) is not None
