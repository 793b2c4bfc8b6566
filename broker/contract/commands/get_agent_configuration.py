"""`get-agent-configuration`: its parameters and the data of its result."""

from dataclasses import dataclass

from broker.contract.configurations import Generation
from broker.contract.messages import JsonObject

__all__ = [
    "AppliedFile",
    "GetAgentConfiguration",
    "GetAgentConfigurationData",
]


@dataclass(frozen=True)
class GetAgentConfiguration:
    """Report the agent's configuration: one `section`, or all of it.

    `effective` adds the source of each value. The section `centralized` is the active centralized configuration.
    """

    section: str | None = None
    effective: bool = False


@dataclass(frozen=True)
class AppliedFile:
    """One file of the applied configuration; `size` in bytes.

    `content` is its text with secrets masked: TOML, YAML and JSON as JSON, other text unchanged. It is absent if the
    file is too large, or not text.
    """

    path: str
    size: int
    sha256: str
    content: str | None = None


@dataclass(frozen=True)
class GetAgentConfigurationData:
    """The configuration with secrets masked, and the SHA-256 of it as JSON with sorted keys.

    `sources` is the source of each value, by its dotted name. `applied` is the active centralized configuration,
    `altered` the paths of its files that were changed since, `files` its files; at most 100 of each.
    """

    configuration: JsonObject
    sha256: str
    sources: dict[str, str] | None = None
    applied: Generation | None = None
    altered: tuple[str, ...] = ()
    files: tuple[AppliedFile, ...] | None = None
