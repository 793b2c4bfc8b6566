"""The server: turns requests into ordered, durable commands for each agent and stores their results.

These names are the public API of the server's side, and of what both sides share (`Command`, `CommandType`, `Artifact`,
`ErrorCode`, `SECRET`); docs/extending.md shows their use and says how they change. Everything below may change in any
release.
"""

from importlib import import_module

TYPE_CHECKING = False  # as typing's, whose import alone takes as long as the start of the interpreter
if TYPE_CHECKING:
    from typing import Any

    from broker.app.config import load_config as load_config
    from broker.app.factories import open_ledger as open_ledger
    from broker.app.server import ServerProcess as ServerProcess
    from broker.client.async_client import AsyncClient as AsyncClient
    from broker.client.calls import ApiProblem as ApiProblem
    from broker.client.client import Client as Client
    from broker.contract.artifacts import Artifact as Artifact
    from broker.contract.commands import CommandType as CommandType
    from broker.contract.messages import Command as Command
    from broker.contract.messages import Origin as Origin
    from broker.contract.secrets import SECRET as SECRET
    from broker.contract.states import ErrorCode as ErrorCode
    from broker.errors import BrokerError as BrokerError
    from broker.fleet.models import AgentFilter as AgentFilter
    from broker.fleet.models import CommandFilter as CommandFilter
    from broker.fleet.models import EventFilter as EventFilter
    from broker.fleet.models import SendRequest as SendRequest
    from broker.ledger.enqueue import CommandRequest as CommandRequest
    from broker.ledger.event_types import EventType as EventType

__all__ = [
    "SECRET",
    "AgentFilter",
    "ApiProblem",
    "Artifact",
    "AsyncClient",
    "BrokerError",
    "Client",
    "Command",
    "CommandFilter",
    "CommandRequest",
    "CommandType",
    "ErrorCode",
    "EventFilter",
    "EventType",
    "Origin",
    "SendRequest",
    "ServerProcess",
    "load_config",
    "open_ledger",
]

# Each name is imported when it is first used, so that a plug-in does not load the MQTT client.
_MODULE_OF = {
    "AgentFilter": "broker.fleet.models",
    "ApiProblem": "broker.client.calls",
    "Artifact": "broker.contract.artifacts",
    "AsyncClient": "broker.client.async_client",
    "BrokerError": "broker.errors",
    "Client": "broker.client.client",
    "Command": "broker.contract.messages",
    "CommandFilter": "broker.fleet.models",
    "CommandRequest": "broker.ledger.enqueue",
    "CommandType": "broker.contract.commands",
    "ErrorCode": "broker.contract.states",
    "EventFilter": "broker.fleet.models",
    "EventType": "broker.ledger.event_types",
    "Origin": "broker.contract.messages",
    "SendRequest": "broker.fleet.models",
    "SECRET": "broker.contract.secrets",
    "ServerProcess": "broker.app.server",
    "load_config": "broker.app.config",
    "open_ledger": "broker.app.factories",
}


def __getattr__(name: str) -> "Any":
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
