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
from consumer.enrolment.enrolments import Enrolments
from consumer.errors import ConfigurationError

__all__ = ["AgentConfig", "DownloadConfig", "ServiceConfig", "load_config", "read_identity", "unused_values"]


class ServiceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent manages. kind `child` needs `argv`, kind `systemd` needs `unit`; `stop_grace_s` in seconds."""

    kind: Literal["none", "child", "systemd"] = "none"
    argv: tuple[str, ...] = ()
    unit: str | None = None
    stop_grace_s: float = 10.0


class DownloadConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How files are fetched. `ca_file` replaces the system's certificate authorities; `max_bytes` bounds one file."""

    ca_file: str | None = None
    max_bytes: int = 1 << 30


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

    def check(self) -> None:
        """Raise ConfigurationError with one sentence when the values do not fit together."""
        try:
            check_agent_name(self.agent)
            Topics(self.topic_prefix)
            parse_url(self.broker)
        except (InvalidName, MqttError) as error:
            raise ConfigurationError(str(error)) from error
        durations = (self.default_timeout_s, self.kill_grace_s, self.service.stop_grace_s)
        if not all(seconds > 0 and math.isfinite(seconds) for seconds in durations):
            raise ConfigurationError("default_timeout_s, kill_grace_s and stop_grace_s must be greater than 0.")
        if self.service.kind == "child" and not self.service.argv:
            raise ConfigurationError("service.kind is 'child', but service.argv is empty; name the program to run.")
        if self.service.kind == "systemd" and not self.service.unit:
            raise ConfigurationError("service.kind is 'systemd', but service.unit is missing; name the unit.")


_SECTIONS = frozenset({"service", "download"})


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
    """Merge the sources and check the result; raise ConfigurationError with one sentence.

    Where the state directory holds an enrolment, that decides about `agent`, `broker` and `topic_prefix`, whatever the
    sources say: otherwise a move to another server could never take effect. Raises EnrolmentError if it is damaged.
    """
    source = _from_file(path)
    configured = _configured(source, flags, environment)
    merged = {**configured, **_from_enrolment(configured)}
    try:
        config = msgspec.convert(merged, AgentConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"The configuration ({source.name}, environment, flags) is wrong: {error}.") from error
    config.check()
    return config


def unused_values(
    path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> list[str]:
    """Return the names of what is configured and not used, because the enrolment says something else."""
    configured = _configured(_from_file(path), flags, environment)
    enrolled = _from_enrolment(configured)
    return [name for name in enrolled if configured.get(name, enrolled[name]) != enrolled[name]]


def read_identity(
    path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[str, Path]:
    """Return the agent's name and its state directory, all that is needed before there is a broker."""
    configured = _configured(_from_file(path), flags, environment)
    configured |= _from_enrolment(configured)
    for name in ("agent", "state"):
        if not isinstance(configured.get(name), str):
            raise ConfigurationError(f"The agent's `{name}` is not configured: say it by --{name} or in the file.")
    try:
        return check_agent_name(configured["agent"]), Path(configured["state"])
    except InvalidName as error:
        raise ConfigurationError(str(error)) from error


def _configured(source: _Source, flags: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    given = {name: value for name, value in flags.items() if value is not None}
    return {**source.values, **_from_environment(environment), **given}


def _from_enrolment(configured: Mapping[str, Any]) -> dict[str, Any]:
    state, agent = configured.get("state"), configured.get("agent")
    enrolment = Enrolments(Path(state)).current() if isinstance(state, str) else None
    if enrolment is None:
        return {}
    grant = enrolment.grant
    if agent not in (None, grant.agent):
        raise ConfigurationError(
            f"The state directory {state} belongs to the enrolled agent {grant.agent}; {agent!r} needs its own."
        )
    return {"agent": grant.agent, "broker": grant.broker, "topic_prefix": grant.topic_prefix}
