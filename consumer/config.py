"""The agent's configuration: flags over environment (ACM_*) over a TOML file over the defaults."""

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from broker.contract.minisign import PublicKey, SignatureError
from broker.contract.topics import InvalidName, Topics, check_agent_name
from broker.mqtt import MqttError, parse_url
from consumer.errors import ConfigurationError

__all__ = ["AgentConfig", "DownloadConfig", "ServiceConfig", "UpgradeConfig", "load_config"]


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
    upgrade: UpgradeConfig = UpgradeConfig()

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
        _check_upgrade(self.upgrade)


def _check_upgrade(upgrade: UpgradeConfig) -> None:
    if not all(seconds > 0 and math.isfinite(seconds) for seconds in (upgrade.self_test_s, upgrade.watch_s)):
        raise ConfigurationError("upgrade.self_test_s and upgrade.watch_s must be greater than 0.")
    if upgrade.root is not None and not Path(upgrade.root).is_absolute():
        raise ConfigurationError(f"upgrade.root is {upgrade.root!r}; write a path that begins with /.")
    for key in upgrade.public_keys:
        try:
            PublicKey.parse(key)
        except SignatureError as error:
            raise ConfigurationError(f"upgrade.public_keys: {error}") from error


_SECTIONS = frozenset({"service", "download", "upgrade"})


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
