"""The server's side: turns requests into ordered, durable commands for each agent and keeps their results.

These names are the public API of the server's side, and of what both sides share (`Command`, `CommandType`, `Artifact`,
`ErrorCode`, `SECRET`); docs/extending.md shows their use and says how they change. Everything below may change in any
release.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.app.config import load_config as load_config
    from broker.app.server import ServerProcess as ServerProcess
    from broker.contract.artifacts import Artifact as Artifact
    from broker.contract.commands import CommandType as CommandType
    from broker.contract.messages import Command as Command
    from broker.contract.secrets import SECRET as SECRET
    from broker.contract.states import ErrorCode as ErrorCode
    from broker.errors import BrokerError as BrokerError
    from broker.ledger.ledger import Ledger as Ledger
    from broker.server.server import Server as Server

__all__ = [
    "SECRET",
    "Artifact",
    "BrokerError",
    "Command",
    "CommandType",
    "ErrorCode",
    "Ledger",
    "Server",
    "ServerProcess",
    "load_config",
]

# Each name is imported when it is first used, so that a plug-in does not load the MQTT client.
_HOMES = {
    "Artifact": "broker.contract.artifacts",
    "BrokerError": "broker.errors",
    "Command": "broker.contract.messages",
    "CommandType": "broker.contract.commands",
    "ErrorCode": "broker.contract.states",
    "Ledger": "broker.ledger.ledger",
    "SECRET": "broker.contract.secrets",
    "Server": "broker.server.server",
    "ServerProcess": "broker.app.server",
    "load_config": "broker.app.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
