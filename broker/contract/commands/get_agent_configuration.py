"""Parameters of `get-agent-configuration`."""

from dataclasses import dataclass

__all__ = ["GetAgentConfiguration"]


@dataclass(frozen=True)
class GetAgentConfiguration:
    """Report the configuration in force: one `section` of it, or all of it."""

    section: str | None = None
