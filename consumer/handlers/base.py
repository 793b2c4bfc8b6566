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
from consumer.enrolment.relocation import NoRelocation
from consumer.observe import LogObserver, Observer
from consumer.ports import Clock, Relocation, Service, StoredCommand

__all__ = ["AgentRestart", "Context", "Handler", "Interruption", "Result"]


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
    """Returned by a handler that needs the agent's process replaced; its `probe` gives the result afterwards."""


@dataclass(frozen=True)
class Context:
    """What a handler may use.

    `deadline` is in seconds of `clock.monotonic()`; a handler must end by then or when `cancelled` is set.
    `restarted_by` is the id of the command for which this process replaced an earlier one. A handler keeps what must
    outlive the process below `state`, in a place of its own, and tells the `observer` of its steps.
    """

    clock: Clock
    service: Service
    config: AgentConfig
    incarnation: str
    restarted_by: str | None = None
    deadline: float = float("inf")
    cancelled: threading.Event = field(default_factory=threading.Event)
    observer: Observer = LogObserver()  # noqa: RUF009 - it has no state
    relocation: Relocation = NoRelocation()  # noqa: RUF009 - it has no state

    @property
    def failure_code(self) -> ErrorCode:
        """The code of a failure that happens now: a command that was told to end, or had no time left, says so."""
        if self.cancelled.is_set():
            return ErrorCode.CANCELLED
        return ErrorCode.TIMED_OUT if self.clock.monotonic() >= self.deadline else ErrorCode.FAILED

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
