"""`get-agent-configuration`: its parameters and the data of its result."""

from dataclasses import dataclass

from broker.contract.messages import JsonObject

__all__ = ["GetAgentConfiguration", "GetAgentConfigurationData"]


@dataclass(frozen=True)
class GetAgentConfiguration:
    """Report the configuration in force: one `section` of it, or all of it."""

    section: str | None = None


@dataclass(frozen=True)
class GetAgentConfigurationData:
    """The configuration with its secrets masked, and the SHA-256 of the unmasked one as JSON with sorted keys."""

    configuration: JsonObject
    sha256: str
