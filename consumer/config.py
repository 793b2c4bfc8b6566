"""The agent's configuration: flags over environment (ACM_*) over a TOML file over the defaults."""

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from broker.contract.topics import InvalidName, Topics, check_agent_name
from broker.mqtt import MqttError, parse_url
from consumer.errors import ConfigurationError
from consumer.services.systemd import is_unit_name

__all__ = ["ActiveResponseConfig", "AgentConfig", "DownloadConfig", "ServiceConfig", "load_config"]


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


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that an agent is told. Durations are in seconds."""

    agent: str
    broker: str
    state: str
    accept_unsigned: bool = False
    topic_prefix: str = "acm"
    default_timeout_s: float = 60.0
    kill_grace_s: float = 5.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    service: ServiceConfig = ServiceConfig()
    download: DownloadConfig = DownloadConfig()
    active_response: ActiveResponseConfig = ActiveResponseConfig()

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


_SECTIONS = frozenset({"service", "download", "active_response"})


@dataclass(frozen=True)
class _Source:
    name: str
    values: Mapping[str, Any]


def _from_file(path: Path | None) -> _Source:
    if path is None:
        return _Source("defaults", {})
    try:
        return _Source(str(path), tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}.") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    names = {f"ACM_{name.upper()}": name for name in AgentConfig.__struct_fields__ if name not in _SECTIONS}
    found: dict[str, Any] = {names[key]: value for key, value in environment.items() if key in names}
    for name in ("accept_unsigned",):
        if name in found:
            found[name] = _boolean(f"ACM_{name.upper()}", found[name])
    return found


def _boolean(variable: str, text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in words:
        raise ConfigurationError(f"{variable} is {text!r}; use true or false.")
    return words[text.lower()]


def load_config(
    path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> AgentConfig:
    """Merge the sources and check the result; raise ConfigurationError with one sentence."""
    source = _from_file(path)
    given = {name: value for name, value in flags.items() if value is not None}
    merged = {**source.values, **_from_environment(environment), **given}
    try:
        config = msgspec.convert(merged, AgentConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"The configuration ({source.name}, environment, flags) is wrong: {error}.") from error
    config.check()
    return config
