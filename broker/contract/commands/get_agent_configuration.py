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
    """Report the configuration in force: one `section` of it, or all of it.

    `effective` adds where each value came from. The section `centralized` is the applied centralized configuration.
    """

    section: str | None = None
    effective: bool = False


@dataclass(frozen=True)
class AppliedFile:
    """One file of the applied configuration; `size` in bytes.

    `content` is its text with secrets masked: TOML, YAML and JSON are shown as JSON, other text as it is. It is absent
    where the file is too large, or not text.
    """

    path: str
    size: int
    sha256: str
    content: str | None = None


@dataclass(frozen=True)
class GetAgentConfigurationData:
    """The configuration with its secrets masked, and the SHA-256 of just that as JSON with sorted keys.

    `sources` gives the source of each value by its dotted name. `applied` is the active centralized configuration, and
    `altered` names those of its files that are not as they were applied. `files` shows its files; both at most 100.
    """

    configuration: JsonObject
    sha256: str
    sources: dict[str, str] | None = None
    applied: Generation | None = None
    altered: tuple[str, ...] = ()
    files: tuple[AppliedFile, ...] | None = None
