"""What a handler is: a function that runs one command, and what a crash in the midst of it means."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from broker.contract.messages import Command, JsonObject, Output
from broker.contract.states import ErrorCode
from consumer.ports import Clock, Service, StoredCommand

__all__ = ["AgentRestart", "Context", "Handler", "Interruption", "Result"]


class Interruption(StrEnum):
    """What it means when the agent dies while the handler runs."""

    RERUN = "rerun"
    REPORT = "report"
    PROBE = "probe"


@dataclass(frozen=True)
class Result:
    """What became of a command. No code means success; `message` is one sentence that a user can act on."""

    message: str
    data: JsonObject | None = None
    code: ErrorCode | None = None
    output: Output | None = None


@dataclass(frozen=True)
class AgentRestart:
    """Returned by a handler that needs the agent's process replaced; its `probe` gives the result afterwards."""


@dataclass(frozen=True)
class Context:
    """What a handler may use. `deadline` is in seconds of `clock.monotonic()`; a handler must end by then or when
    `cancelled` is set. `restarted_by` is the id of the command for which this process replaced an earlier one."""

    clock: Clock
    service: Service
    configuration: Mapping[str, Any]
    incarnation: str
    restarted_by: str | None = None
    deadline: float = float("inf")
    cancelled: threading.Event = field(default_factory=threading.Event)


Execute = Callable[[Command, Any, Context], Result | AgentRestart]
Probe = Callable[[StoredCommand, Context], Result]


@dataclass(frozen=True)
class Handler:
    """Runs one command type. `parameters` is the dataclass that the command's parameters must fit.

    `probe` is needed where the interruption rule is `probe`, and is called once on the next start.
    """

    command_type: str
    interruption: Interruption
    parameters: type
    execute: Execute
    probe: Probe | None = None
