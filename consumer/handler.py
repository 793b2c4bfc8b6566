"""Handlers: a function that runs one type of command, and a rule for a crash while it runs."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from broker.contract.limits import MAX_FRAME_BYTES
from broker.contract.messages import Command, Output
from broker.contract.states import ErrorCode
from broker.contract.trace_context import TraceContext
from broker.tracing.environment import variables_of
from consumer.errors import HandlerTableError
from consumer.observer import LogObserver, Observer
from consumer.ports import Blobs, Clock, Service, StoredCommand
from consumer.settings import Confinement, DownloadConfig
from consumer.system.leftovers import Leftovers
from consumer.system.programs import Bounds
from consumer.system.progress import HandlerProgress

if TYPE_CHECKING:
    from consumer.system.downloads import Downloader  # loads an HTTP client, which few handlers need

__all__ = [
    "AgentRestart",
    "Context",
    "Handler",
    "Interruption",
    "Replacement",
    "ReplacementTest",
    "Result",
    "check_expiry",
]


P = TypeVar("P")


class Interruption(StrEnum):  # design.md: "The handler declares its interruption"
    """What happens if the agent dies while the handler runs: run it again, report `interrupted`, or ask its probe."""

    RERUN = "rerun"
    REPORT = "report"
    PROBE = "probe"


@dataclass(frozen=True)
class Result:
    """The outcome of a command: success without a `code`; `message` is one sentence that a user can act on.

    `data` is an instance of the command type's dataclass of data, or any other JSON object.
    """

    message: str
    data: Any = None
    code: ErrorCode | None = None
    output: Output | None = None


def check_expiry(command: Command, now: datetime) -> Result | None:
    """Return the result of a command that has expired by `now`; None if it has not."""
    if command.expires_at is None or command.expires_at > now:
        return None
    return Result(f"The command expired at {command.expires_at:%Y-%m-%d %H:%M:%S} UTC.", code=ErrorCode.EXPIRED)


@dataclass(frozen=True)
class AgentRestart:
    """Returned by a handler to have the agent's process replaced; its `probe` returns the result afterwards.

    `program` is the path of the program that replaces it, with the agent's arguments; None restarts the same program.
    """

    program: str | None = None


@dataclass(frozen=True)
class Replacement:
    """The program that replaces the agent's process (None: the same one), and the command that requested it."""

    command_id: str
    program: str | None = None


@dataclass(frozen=True)
class Context:
    """The environment of a running handler.

    `deadline` is in seconds of `clock.monotonic()`; a handler must end by then or when `cancelled` is set. Once
    `stopping` is set, the agent ends: a result returned after that is lost, and the next start decides about the
    command. `state` is the agent's state directory, of mode 0700 and used by this agent alone: a handler stores data
    that must outlive the process there, under its own name, and reports each durable step to the `observer`.
    `download`, `confinement` and `blobs` are the settings and the source that `downloader` and `bounds` work with.
    `max_result_bytes` returns how long a result may be now; of a longer one, parts are left out. `leftovers` removes
    files, and the status names those that it could not remove. The status shows what is reported to `progress`.
    `trace` is the context of the run, if it is part of a trace that is recorded; programs within `bounds` get it in
    their environment.
    """

    clock: Clock
    service: Service
    state: Path
    deadline: float = float("inf")
    cancelled: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)
    observer: Observer = field(default_factory=LogObserver)
    download: DownloadConfig = field(default_factory=DownloadConfig)
    confinement: Confinement = field(default_factory=Confinement)
    blobs: Blobs | None = None
    max_result_bytes: Callable[[], int] = lambda: MAX_FRAME_BYTES
    leftovers: Leftovers = field(default_factory=Leftovers)
    progress: HandlerProgress = field(default_factory=HandlerProgress)
    trace: TraceContext | None = None

    def downloader(self) -> "Downloader":
        """Return a downloader of artifacts that observes this command's deadline."""
        from consumer.system.downloads import Downloader
        from consumer.system.partial_files import PARTIAL_FILES

        partial = self.state / PARTIAL_FILES
        return Downloader(
            self.download,
            self.clock,
            self.deadline,
            self.cancelled,
            self.blobs,
            partial,
            self.leftovers,
            self.progress,
        )

    def bounds(self) -> Bounds:
        """Return the bounds of another program: this command's deadline, and the limits and user of `[programs]`."""
        traced = variables_of(self.trace)
        return Bounds(self.clock, self.deadline, self.cancelled, confinement=self.confinement, environment=traced)

    def failure_code(self) -> ErrorCode:
        """Return the code of a failure now: cancelled, timed out, or failed."""
        if self.cancelled.is_set():
            return ErrorCode.CANCELLED
        return ErrorCode.TIMED_OUT if self.clock.monotonic() >= self.deadline else ErrorCode.FAILED


class ReplacementTest(Protocol):
    """Tests whether the program that is to replace this process starts on this machine."""

    def __call__(self, context: Context, program: str | None = None) -> Result | None:
        """Return the result of a command that must not replace the process because `program` (None: the same one) does
        not start, by the deadline of `context`; None if it does.
        """


Probe = Callable[[StoredCommand, Context], Result | AgentRestart]


@dataclass(frozen=True)
class Handler(Generic[P]):
    """Runs one command type. `parameters` is the dataclass that the command's parameters must fit.

    `probe` is given if and only if the interruption rule is `probe`. It is called after the next start, in order and
    with a deadline, like `execute`, so it may wait for the state that it checks. With `replaces`, this handler replaces
    the one that has its type. Raises HandlerTableError if its parts are inconsistent.
    """

    command_type: str
    interruption: Interruption
    parameters: type[P]
    execute: Callable[[Command, P, Context], Result | AgentRestart]
    probe: Probe | None = None
    replaces: bool = False

    def __post_init__(self) -> None:
        if not is_dataclass(self.parameters):
            raise HandlerTableError(
                f"The parameters of the handler for {self.command_type!r} are not a dataclass.", code="not_a_dataclass"
            )
        if (self.interruption is Interruption.PROBE) != (self.probe is not None):
            raise HandlerTableError(
                f"The handler for {self.command_type!r} has the interruption rule {str(self.interruption)!r}; "
                "it must have a probe if that is 'probe', and only then.",
                code="probe_mismatch",
            )
