"""`fetch-config`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "FETCH_CONFIG",
    "FetchConfig",
    "FetchConfigData",
]


FETCH_CONFIG = "fetch-config"


@dataclass(frozen=True)
class FetchConfig:
    """Request the configuration of the agent's group from the server; no parameters."""


@dataclass(frozen=True)
class FetchConfigData:
    """What the result requests from the server, which sends it as another command."""

    asks_for: Literal["group-configuration"] = "group-configuration"
