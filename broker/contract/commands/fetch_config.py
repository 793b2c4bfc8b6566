"""`fetch-config`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "FetchConfig",
    "FetchConfigData",
]


@dataclass(frozen=True)
class FetchConfig:
    """Ask the server for the configuration of the agent's group; takes no parameters."""


@dataclass(frozen=True)
class FetchConfigData:
    """What the result asks of the server, which sends it as a command of its own."""

    asks_for: Literal["group-configuration"] = "group-configuration"
