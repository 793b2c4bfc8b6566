"""What a handler is: a function that runs one command, and what a crash in the midst of it means."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from broker.contract.messages import Command, Output
from broker.contract.states import ErrorCode
from consumer.active_response.responses import ActiveResponses
from consumer.enrolment.ports import Relocation
from consumer.enrolment.relocation import NoRelocation
from consumer.errors import HandlerTableError
from consumer.observer import LogObserver, Observer
from consumer.ports import Blobs, Clock, Service, StoredCommand
from consumer.settings import AgentConfig
from consumer.system.downloads import Downloader
from consumer.system.partial_files import PARTIAL_FILES
from consumer.system.programs import Bounds
from consumer.trust.ports import KeyKeeper, NoKeeper

__all__ = [
    "AgentRestart",
    "Context",
    "Handler",
    "Interruption",
    "Replacement",
    "Result",
    "expired",
]


P = TypeVar("P")


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


def expired(command: Command, now: datetime) -> Result | None:
    """Return the result of a command that has expired, or None."""
    if command.expires_at is None or command.expires_at > now:
        return None
    return Result(f"The command expired at {command.expires_at:%Y-%m-%d %H:%M:%S} UTC.", code=ErrorCode.EXPIRED)


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

    `deadline` is in seconds of `clock.monotonic()`; a handler must end by then or when `cancelled` is set. Once
    `stopping` is set the agent ends: what a handler returns from then on is lost, and the next start sees to its
    command. `restarted_by` is the id of the command for which this process replaced an earlier one. A handler keeps
    what must outlive the process below `state`, in a place of its own, and tells the `observer` of its steps.

    `responses` is None where an agent is put together without active responses. `origins` says by dotted name where the
    values of `config` come from that are not defaults, as far as that is known.
    `readiness_problem` says what this process has not shown yet of an agent's work, after a colon; None: it connects,
    stores and answers.
    """

    clock: Clock
    service: Service
    config: AgentConfig
    incarnation: str
    restarted_by: str | None = None
    deadline: float = float("inf")
    cancelled: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)
    observer: Observer = LogObserver()  # noqa: RUF009 - it has no state
    blobs: Blobs | None = None
    responses: ActiveResponses | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    readiness_problem: Callable[[], str | None] = _unknown
    relocation: Relocation = NoRelocation()  # noqa: RUF009 - it has no state
    keeper: KeyKeeper = NoKeeper()  # noqa: RUF009 - it has no state

    @property
    def state(self) -> Path:
        """The agent's state directory, of mode 0700 and used by this agent alone."""
        return Path(self.config.state)

    def downloader(self) -> Downloader:
        """Return what fetches artifacts within this command's time."""
        partial = self.state / PARTIAL_FILES
        return Downloader(self.config.download, self.clock, self.deadline, self.cancelled, self.blobs, partial)

    def bounds(self) -> Bounds:
        """Return the bounds for another program: this command's time, and the limits and the user of `[programs]`."""
        return Bounds(self.clock, self.deadline, self.cancelled, confinement=self.config.programs)

    def failure_code(self) -> ErrorCode:
        """Return what an expected failure is now: cancelled, timed out, or just failed."""
        if self.cancelled.is_set():
            return ErrorCode.CANCELLED
        return ErrorCode.TIMED_OUT if self.clock.monotonic() >= self.deadline else ErrorCode.FAILED


Probe = Callable[[StoredCommand, Context], Result | AgentRestart]


@dataclass(frozen=True)
class Handler(Generic[P]):
    """Runs one command type. `parameters` is the dataclass that the command's parameters must fit.

    `probe` is there exactly where the interruption rule is `probe`. It is called on the next start, on the lane of the
    commands and with a deadline as `execute` is, so it may wait for what it must see. `replaces` says that this handler
    takes the place of the one that has its type. Raises HandlerTableError when the parts do not fit together.
    """

    command_type: str
    interruption: Interruption
    parameters: type[P]
    execute: Callable[[Command, P, Context], Result | AgentRestart]
    probe: Probe | None = None
    replaces: bool = False

    def __post_init__(self) -> None:
        if not is_dataclass(self.parameters):
            raise HandlerTableError(f"The parameters of the handler for {self.command_type!r} are not a dataclass.")
        if (self.interruption is Interruption.PROBE) != (self.probe is not None):
            raise HandlerTableError(
                f"The handler for {self.command_type!r} has the interruption rule {str(self.interruption)!r}; "
                "it must have a probe where that is 'probe', and only there."
            )
