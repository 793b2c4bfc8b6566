"""Reads the agent's configuration: flags over environment (ACM_*) over a TOML file over the defaults."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.contract.topics import InvalidName, check_agent_name
from broker.system.settings_file import SettingsReader, given_flags
from consumer.enrolment.store import EnrolmentDirectory
from consumer.errors import ConfigurationError
from consumer.settings import AgentConfig, Secret
from consumer.store.state_directory import refuse_exposed

__all__ = [
    "Source",
    "load_config",
    "load_identity",
    "merge_sources",
    "origins",
    "read_sources",
    "unused_values",
]


_READER = SettingsReader(urls=("broker",), error=ConfigurationError)
_ENROLMENT = "enrolment"
_SECTIONS = frozenset({"service", "download", "active_response", "configuration", "upgrade", "programs"})


@dataclass(frozen=True)
class Source:
    """Values and their source: `name` is for messages, `names` is more exact for single top-level values."""

    name: str
    values: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)


def read_sources(
    path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> list[Source]:
    """Return the sources, the weakest first; raises ConfigurationError.

    An enrolment in the state directory overrides `agent`, `broker` and `topic_prefix` from all other sources; otherwise
    the next start would undo a move to another server. Raises EnrolmentError if the enrolment is damaged, and
    ExposedFileError if other users could write to the state directory or the file.
    """
    # design.md: "The enrolment determines the broker, not the configuration"
    given = given_flags(flags)
    _READER.refuse_passwords(given)
    from_file = [] if path is None else [Source(f"file {path}", _READER.read_file(path))]
    for source in from_file:
        _READER.refuse_unknown(source.values, AgentConfig, str(path))
    configured = [*from_file, _from_environment(environment), Source("flag", given)]
    return [*configured, *_from_enrolment(_merged_values(configured))]


def _from_environment(environment: Mapping[str, str]) -> Source:
    names = [name for name in AgentConfig.__struct_fields__ if name not in _SECTIONS]
    found = _READER.from_environment(names, environment)
    if "accept_unsigned" in found:
        found["accept_unsigned"] = _boolean(_READER.variable("accept_unsigned"), found["accept_unsigned"])
    return Source("environment", found, {name: f"environment {_READER.variable(name)}" for name in found})


def _from_enrolment(configured: Mapping[str, Any]) -> list[Source]:
    state, agent = configured.get("state"), configured.get("agent")
    if not isinstance(state, str):
        return []
    refuse_exposed(Path(state))
    enrolment = EnrolmentDirectory(Path(state)).current()
    if enrolment is None:
        return []
    grant = enrolment.grant
    if agent not in (None, grant.agent):
        raise ConfigurationError(
            f"The state directory {state} belongs to the enrolled agent {grant.agent}; {agent!r} needs its own.",
            code="agent_mismatch",
        )
    values = {"agent": grant.agent, "broker": grant.broker, "topic_prefix": grant.topic_prefix}
    return [Source(_ENROLMENT, values)]


def _boolean(variable: str, text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in words:
        raise ConfigurationError(f"{variable} is {text!r}; use true or false.", code="invalid_boolean")
    return words[text.lower()]


# design.md: "Configuration is a list of sources"
def merge_sources(sources: Iterable[Source]) -> AgentConfig:
    """Merge the sources, the later over the earlier, and check the result; raises ConfigurationError."""
    sources = list(sources)
    merged = _merged_values(sources)
    _check_present(merged)
    names = ", ".join(source.name for source in sources)
    config = _READER.convert(merged, AgentConfig, names, strict=False, dec_hook=_secret)
    config.check()
    return config


def _check_present(merged: Mapping[str, Any]) -> None:
    if "state" not in merged:
        raise ConfigurationError(
            "The agent's `state` is not configured: set it with --state or in the file.", code="state_missing"
        )
    for name in ("agent", "broker"):
        if name not in merged:
            raise ConfigurationError(
                f"The agent's `{name}` is not configured, and {merged['state']} holds no enrolment that sets it: "
                f"run `acm-agent enroll`, or set --{name}.",
                code=f"{name}_missing",
            )


def _merged_values(sources: Iterable[Source]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for source in sources:
        merged = _merged(merged, source.values)
    return merged


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _secret(kind: type, value: Any) -> Any:
    if kind is not Secret or not isinstance(value, str):
        raise TypeError("Expected `str`")
    return Secret(value)


def origins(sources: Iterable[Source]) -> dict[str, str]:
    """Return the source of each value that is not a default, by dotted name, as in `service.kind`."""
    return {name: source.names.get(name, source.name) for source in sources for name in _dotted_names(source.values)}


def _dotted_names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def load_config(
    path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> AgentConfig:
    """Read and merge the sources and check the result; raises the errors of both."""
    return merge_sources(read_sources(path, flags, environment))


def unused_values(sources: Iterable[Source]) -> list[str]:
    """Return the names of configured values that are not used, because the enrolment sets another value."""
    *configured, last = sources
    given = _merged_values(configured)
    return [name for name, value in last.values.items() if last.name == _ENROLMENT and given.get(name, value) != value]


def load_identity(
    path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[str, Path]:
    """Return the agent's name and state directory, as needed to enroll; raises ConfigurationError."""
    given = _merged_values(read_sources(path, flags, environment))
    for name in ("agent", "state"):
        if not isinstance(given.get(name), str):
            raise ConfigurationError(
                f"The agent's `{name}` is not configured: set it with --{name} or in the file.", code=f"{name}_missing"
            )
    try:
        return check_agent_name(given["agent"]), Path(given["state"])
    except InvalidName as error:
        raise ConfigurationError(str(error), code="invalid_agent") from error
