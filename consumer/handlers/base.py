"""What a handler is: a function that runs one command, and what a crash in the midst of it means."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from broker.contract.messages import Command, Output
from broker.contract.states import ErrorCode
from consumer.config import AgentConfig
from consumer.observe import LogObserver, Observer
from consumer.ports import Clock, Service, StoredCommand

__all__ = ["AgentRestart", "Context", "Handler", "Interruption", "Replacement", "Result"]


class Interruption(StrEnum):
    """What it means when the agent dies while the handler runs."""

    RERUN = "rerun"
    REPORT = "report"
    PROBE = "probe"


@dataclass(frozen=True)
class Result:
    """What became of a command. No code means success; `message` is one sentence that a user can act on.

    `data` is an instance of the command type's dataclass of data, or any other JSON object.
    """

    message: str
    data: Any = None
    code: ErrorCode | None = None
    output: Output | None = None


@dataclass(frozen=True)
class AgentRestart:
    """Returned by a handler that needs the agent's process replaced; its `probe` gives the result afterwards.

    `program` is what takes the process over, with the arguments that the agent was started with; None: the same anew.
    """

    program: str | None = None


@dataclass(frozen=True)
class Replacement:
    """What is to take the agent's process over, and for which command."""

    command_id: str
    program: str | None = None


def _unknown() -> str:
    return "it cannot tell whether it does an agent's work"


@dataclass(frozen=True)
class Context:
    """What a handler may use.

    `deadline` is in seconds of `clock.monotonic()`; a handler must end by then or when `cancelled` is set.
    `restarted_by` is the id of the command for which this process replaced an earlier one. A handler keeps what must
    outlive the process below `state`, in a place of its own, and tells the `observer` of its steps. `unproved` says
    what this process has not shown yet of an agent's work, after a colon; None: it connects, stores and answers.
    """

    clock: Clock
    service: Service
    config: AgentConfig
    incarnation: str
    restarted_by: str | None = None
    deadline: float = float("inf")
    cancelled: threading.Event = field(default_factory=threading.Event)
    observer: Observer = LogObserver()  # noqa: RUF009 - it has no state
    unproved: Callable[[], str | None] = _unknown

    @property
    def state(self) -> Path:
        """The agent's state directory, of mode 0700 and used by this agent alone."""
        return Path(self.config.state)


Execute = Callable[[Command, Any, Context], Result | AgentRestart]
Probe = Callable[[StoredCommand, Context], Result | AgentRestart]


@dataclass(frozen=True)
class Handler:
    """Runs one command type. `parameters` is the dataclass that the command's parameters must fit.

    `probe` is needed where the interruption rule is `probe`. It is called on the next start, on the lane of the
    commands and with a deadline as `execute` is, so it may wait for what it must see.
    """

    command_type: str
    interruption: Interruption
    parameters: type
    execute: Execute
    probe: Probe | None = None
