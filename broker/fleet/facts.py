"""What is known of a command, its agent, its agent's queue and the server: the facts that explain where it is.

Nothing here reads or decides anything: `broker.fleet.facts_in_ledger` reads them, `broker.fleet.timeline` and
`broker.fleet.waiting` decide.
"""

from dataclasses import dataclass
from datetime import datetime

from broker.contract.messages import RunningProgress

__all__ = [
    "AgentFacts",
    "CommandFacts",
    "Facts",
    "QueueFacts",
    "RunningFacts",
    "ServerFacts",
]


@dataclass(frozen=True)
class CommandFacts:
    """One command. Times are UTC, by the ledger's clock; `began_at` and `ended_at` are by its agent's, uncorrected.

    `state` and `outcome` are those of the glossary. `is_due`: it waits to be sent, for the first time or again.
    `sent_at` is when a server first claimed it, `stored_at` and `running_at` are when it was recorded that its agent
    has stored and begun it, `completed_at` when its result was. `by_server`: the server has completed it itself,
    without its agent. `store_generation` is that of the store that its result came from.
    """

    id: str
    agent: str
    type: str
    state: str
    created_at: datetime
    sent_at: datetime | None = None
    stored_at: datetime | None = None
    running_at: datetime | None = None
    completed_at: datetime | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    code: str | None = None
    expires_at: datetime | None = None
    timeout_s: float | None = None
    is_due: bool = False
    by_server: bool = False
    store_generation: str | None = None


@dataclass(frozen=True)
class AgentFacts:
    """A command's agent, by its last status and when that arrived (UTC, by the ledger's clock; None: it sent none).

    `state` is that of the glossary. `running_progress` is how far its running command was, `results_waiting` how many
    results it had then that no ack had reached.
    `problems` are codes, `last_error` their sentences. `clock_ahead_s` is by how many seconds its clock was ahead of
    the ledger's (negative: behind), None within a minute. `enrolment` is `valid`, `expired` or `revoked`, None if it
    was never enrolled here; `enrolment_end` is when that ended or ends. `hold` is the code of why the server sends it
    nothing, `resend_at` when it sends again what is not confirmed.
    """

    state: str = "unknown"
    seen_at: datetime | None = None
    store_generation: str | None = None
    running_command: str | None = None
    running_progress: RunningProgress | None = None
    results_waiting: int = 0
    problems: tuple[str, ...] = ()
    last_error: str | None = None
    clock_ahead_s: float | None = None
    name_conflict: bool = False
    enrolment: str | None = None
    enrolment_end: datetime | None = None
    hold: str | None = None
    resend_at: datetime | None = None


@dataclass(frozen=True)
class RunningFacts:
    """Another command that the agent runs: its id and type, and since when (UTC, by the ledger's clock)."""

    id: str
    type: str
    since: datetime | None


@dataclass(frozen=True)
class QueueFacts:
    """The open commands of the same agent: how many have earlier numbers (counted to 1,000), and the one that runs."""

    before: int = 0
    running: RunningFacts | None = None


@dataclass(frozen=True)
class ServerFacts:
    """A server that runs on the ledger.

    `connection_at` is since when it is connected to the broker or, with a `connection_problem`, since when it is not;
    None if that is not known. `is_stopped`: a signal has stopped its process, which is seen on its own machine only.
    """

    host: str
    pid: int
    started_at: datetime
    connection_at: datetime | None = None
    connection_problem: str | None = None
    is_stopped: bool = False


@dataclass(frozen=True)
class Facts:
    """All that explains where a command is, as it was known at the time `now` (UTC, by the ledger's clock)."""

    now: datetime
    command: CommandFacts
    agent: AgentFacts
    queue: QueueFacts
    servers: tuple[ServerFacts, ...]

    @property
    def progress(self) -> RunningProgress | None:
        """How far the command is, if its agent runs it and reports that."""
        is_this = self.command.state == "running" and self.agent.running_command == self.command.id
        return self.agent.running_progress if is_this else None
