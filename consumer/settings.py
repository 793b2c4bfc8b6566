"""The agent's configuration as typed structures."""

import math
import os
import pwd
import re
import resource
import signal
from pathlib import Path
from typing import Literal, Self

import msgspec

from broker.contract.fields import FileName
from broker.contract.secrets import MASK, URL_PASSWORD
from broker.contract.topics import InvalidName, Topics, check_agent_name
from broker.mqtt.address import MqttError, parse_url
from broker.release.minisign import MinisignError, PublicKey
from consumer.errors import ConfigurationError

__all__ = [
    "ActiveResponseConfig",
    "AgentConfig",
    "CentralizedConfig",
    "Confinement",
    "DownloadConfig",
    "Secret",
    "ServiceConfig",
    "UpgradeConfig",
    "is_unit_name",
]


class ServiceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent manages. kind `child` needs `argv`, kind `systemd` needs `unit`.

    `settle_s`: what ends within so many seconds after its start was not started. `stop_grace_s`: between TERM and KILL
    for a child; a unit has its own TimeoutStopSec=.
    """

    kind: Literal["none", "child", "systemd"] = "none"
    argv: tuple[str, ...] = ()
    unit: str | None = None
    stop_grace_s: float = 10.0
    settle_s: float = 1.0


class DownloadConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How files are fetched. `ca_file` replaces the system's certificate authorities; `max_bytes` bounds one file."""

    ca_file: str | None = None
    max_bytes: int = 1 << 30


class ActiveResponseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which scripts may be run. Without `directory` and `allow_list` they are those that the agent brings along.

    `repeated_offenders` are minutes: the first replaces the timeout of a key's 2nd offence, the second that of its 3rd,
    and so on; the last holds from then on. `script_deadline_s` bounds one run of a script.
    """

    directory: str | None = None
    allow_list: str | None = None
    repeated_offenders: tuple[float, ...] = ()
    script_deadline_s: float = 10.0

    def check(self) -> None:
        """Raise ConfigurationError with one sentence when the values do not fit together."""
        if (self.directory is None) != (self.allow_list is None):
            raise ConfigurationError("active_response.directory and active_response.allow_list must be set together.")
        if len(self.repeated_offenders) > 5:
            raise ConfigurationError("active_response.repeated_offenders has more than 5 numbers of minutes.")
        if not all(
            number > 0 and math.isfinite(number) for number in (*self.repeated_offenders, self.script_deadline_s)
        ):
            raise ConfigurationError(
                "active_response.repeated_offenders and active_response.script_deadline_s must be greater than 0."
            )


class UpgradeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the agent upgrades itself. `root` is what `acm-agent install` made, `public_keys` are those of minisign.

    A package must be of the product `name`. Its self-test may take `self_test_s`; the new version has `watch_s` to
    prove itself. `keep` releases stay on the disk.
    """

    root: str | None = None
    public_keys: tuple[str, ...] = ()
    name: str = "agent-command-manager"
    self_test_s: float = 30.0
    watch_s: float = 60.0
    keep: int = 3


class CentralizedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where generations are kept, and the programs that judge them.

    In `check`, `reload_command` and `health_check` the words `{directory}` and `{file}` stand for the paths of the
    generation and of its single file. `check` judges the files before they become active; `health_check` judges the
    service afterwards, again and again, and must come good within `grace_s` seconds. A managed service that dies
    within them counts as bad too. `keep` older generations stay on the disk. `directory` is below the agent's state
    directory when it is not given.
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

    @property
    def signal_number(self) -> signal.Signals:
        """The signal that `reload_signal` names, with or without SIG; raises KeyError for one that does not exist."""
        return signal.Signals[f"SIG{self.reload_signal.upper().removeprefix('SIG')}"]

    def verify(self, *, has_service: bool) -> None:
        """Raise ConfigurationError with one sentence when the values do not fit together."""
        if self.reload in ("signal", "restart") and not has_service:
            raise ConfigurationError(
                f"configuration.reload is {self.reload!r}, but the agent manages no service; configure [service]."
            )
        if self.reload == "command" and not self.reload_command:
            raise ConfigurationError(
                "configuration.reload is 'command', but configuration.reload_command is empty; name the program to run."
            )
        if not (self.grace_s > 0 and math.isfinite(self.grace_s)) or self.keep < 1:
            raise ConfigurationError("configuration.grace_s must be greater than 0, and configuration.keep at least 1.")
        try:
            _ = self.signal_number
        except KeyError:
            raise ConfigurationError(
                f"configuration.reload_signal is {self.reload_signal!r}, which is no signal; write HUP or USR1."
            ) from None


class Confinement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[programs]`: what one process that a handler starts may use.

    `memory_bytes` bounds what it may write to (RLIMIT_DATA), `file_bytes` each file that it writes, `open_files` its
    descriptors. `processes` bounds the processes and threads of its user on the whole machine (RLIMIT_NPROC); the
    kernel does not hold root to it. It leaves no core dump. `user`, for an agent that runs as root, is who it runs as.
    """

    memory_bytes: int = 2 << 30
    file_bytes: int = 1 << 30
    open_files: int = 1024
    processes: int = 4096
    user: str | None = None

    def check(self) -> None:
        """Raise ConfigurationError with one sentence when it cannot be kept here."""
        if min(self.memory_bytes, self.file_bytes, self.open_files, self.processes) < 1:
            raise ConfigurationError(
                "programs.memory_bytes, file_bytes, open_files and processes must be greater than 0."
            )
        if self.user is None:
            return
        if os.geteuid() != 0:
            raise ConfigurationError(
                f"programs.user is {self.user!r}, but the agent does not run as root and cannot become another user; "
                "remove programs.user, or run the agent as root."
            )
        if self._account(self.user).pw_uid == 0:
            raise ConfigurationError("programs.user is an account of root; name one without rights, as in 'nobody'.")

    def as_agent(self) -> Self:
        """Return the same limits for a program that needs the agent's own rights."""
        return msgspec.structs.replace(self, user=None)

    @property
    def limits(self) -> dict[int, int]:
        """The limits by their numbers in setrlimit(2)."""
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
            raise ConfigurationError(f"programs.user is {name[:80]!r}, which is no user of this machine.") from None


class Secret(str):
    """A text that is used as it is, and shown masked: a URL without its password, anything else not at all.

    msgspec writes it only by an `enc_hook`, so that no one writes it out unawares.
    """

    __slots__ = ()

    @property
    def masked(self) -> str:
        """What may be shown of it."""
        text = self[:]
        return URL_PASSWORD.sub(rf"\1{MASK}@", text) if "://" in text else MASK

    def __repr__(self) -> str:
        return repr(self.masked)

    def __str__(self) -> str:
        return self.masked


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that an agent is told. Durations are in seconds."""

    agent: str
    broker: Secret
    state: str
    accept_unsigned: bool = False
    topic_prefix: str = "acm"
    default_timeout_s: float = 60.0
    kill_grace_s: float = 5.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    service: ServiceConfig = ServiceConfig()
    download: DownloadConfig = DownloadConfig()
    active_response: ActiveResponseConfig = ActiveResponseConfig()
    configuration: CentralizedConfig = CentralizedConfig()
    upgrade: UpgradeConfig = UpgradeConfig()
    programs: Confinement = Confinement()

    @property
    def configuration_root(self) -> Path:
        """Where the generations of the centralized configuration are."""
        return Path(self.configuration.directory or Path(self.state, "configuration"))

    def check(self) -> None:
        """Raise ConfigurationError with one sentence when the values do not fit together."""
        try:
            check_agent_name(self.agent)
            Topics(self.topic_prefix)
            parse_url(self.broker)
        except (InvalidName, MqttError) as error:
            raise ConfigurationError(str(error)) from error
        service = self.service
        durations = (self.default_timeout_s, self.kill_grace_s, service.stop_grace_s, service.settle_s)
        if not all(seconds > 0 and math.isfinite(seconds) for seconds in durations):
            raise ConfigurationError(
                "default_timeout_s, kill_grace_s, stop_grace_s and settle_s must be greater than 0."
            )
        if service.kind == "child" and not service.argv:
            raise ConfigurationError("service.kind is 'child', but service.argv is empty; name the program to run.")
        if service.kind == "systemd" and not service.unit:
            raise ConfigurationError("service.kind is 'systemd', but service.unit is missing; name the unit.")
        self.active_response.check()
        if service.unit is not None and not is_unit_name(service.unit):
            raise ConfigurationError(
                f"service.unit is {service.unit[:80]!r}; it must be the full name of a service, as in 'sensor.service' "
                "or 'sensor@1.service'."
            )
        self.configuration.verify(has_service=service.kind != "none")
        _check_upgrade(self.upgrade)
        self.programs.check()


def _check_upgrade(upgrade: UpgradeConfig) -> None:
    if not all(seconds > 0 and math.isfinite(seconds) for seconds in (upgrade.self_test_s, upgrade.watch_s)):
        raise ConfigurationError("upgrade.self_test_s and upgrade.watch_s must be greater than 0.")
    if upgrade.root is not None and not Path(upgrade.root).is_absolute():
        raise ConfigurationError(f"upgrade.root is {upgrade.root!r}; write a path that begins with /.")
    for key in upgrade.public_keys:
        try:
            PublicKey.parse(key)
        except MinisignError as error:
            raise ConfigurationError(f"upgrade.public_keys: {error}") from error


_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.service")
_MAX_NAME_LENGTH = 255


def is_unit_name(name: str) -> bool:
    """Whether this is the full name of a service unit that can be started (systemd.unit(5)); not of a template."""
    return len(name) <= _MAX_NAME_LENGTH and _UNIT_NAME.fullmatch(name) is not None
