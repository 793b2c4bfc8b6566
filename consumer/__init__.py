"""The agent: stores commands durably, runs them in order, and reports exactly one true result for each.

These names are the agent's public API; `broker` has those that both sides share. docs/extending.md shows how to use
them and how they may change. All other names may change in any release.
"""

from importlib import import_module

TYPE_CHECKING = False  # as typing's, whose import alone takes as long as the start of the interpreter
if TYPE_CHECKING:
    from typing import Any

    from consumer.agent import Agent as Agent
    from consumer.cli.main import main as main
    from consumer.config import load_config as load_config
    from consumer.errors import ConsumerError as ConsumerError
    from consumer.handler import AgentRestart as AgentRestart
    from consumer.handler import Context as Context
    from consumer.handler import Handler as Handler
    from consumer.handler import Interruption as Interruption
    from consumer.handler import Result as Result
    from consumer.plugins import load_plug_ins as load_plug_ins
    from consumer.ports import Service as Service
    from consumer.ports import StoredCommand as StoredCommand
    from consumer.replacement import RESTARTED_BY as RESTARTED_BY
    from consumer.replacement import replace_process as replace_process
    from consumer.replacement import take_secrets as take_secrets
    from consumer.services import CallbackService as CallbackService
    from consumer.settings import AgentConfig as AgentConfig
    from consumer.system.programs import run_program as run_program
    from consumer.upgrade.watcher import is_watched as is_watched

__all__ = [
    "RESTARTED_BY",
    "Agent",
    "AgentConfig",
    "AgentRestart",
    "CallbackService",
    "ConsumerError",
    "Context",
    "Handler",
    "Interruption",
    "Result",
    "Service",
    "StoredCommand",
    "is_watched",
    "load_config",
    "load_plug_ins",
    "main",
    "replace_process",
    "run_program",
    "take_secrets",
]

# Each name is imported when it is first used, so that a plug-in does not load the MQTT client.
_MODULE_OF = {
    "Agent": "consumer.agent",
    "AgentConfig": "consumer.settings",
    "AgentRestart": "consumer.handler",
    "CallbackService": "consumer.services",
    "ConsumerError": "consumer.errors",
    "Context": "consumer.handler",
    "Handler": "consumer.handler",
    "Interruption": "consumer.handler",
    "RESTARTED_BY": "consumer.replacement",
    "Result": "consumer.handler",
    "Service": "consumer.ports",
    "StoredCommand": "consumer.ports",
    "is_watched": "consumer.upgrade.watcher",
    "load_config": "consumer.config",
    "load_plug_ins": "consumer.plugins",
    "main": "consumer.cli.main",
    "replace_process": "consumer.replacement",
    "run_program": "consumer.system.programs",
    "take_secrets": "consumer.replacement",
}


def __getattr__(name: str) -> "Any":
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
