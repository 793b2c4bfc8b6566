"""Counts what the server does, in memory, a turn at a time."""

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain

from broker.contract.messages import Feedback
from broker.contract.states import CommandState, ErrorCode, FeedbackKind, Outcome
from broker.errors import LedgerError
from broker.ledger.feedback import Completed, Recorded
from broker.ledger.groups import GroupStore
from broker.ledger.outbox import Claimed
from broker.ledger.turns import RecordedTurn, Said
from broker.metrics.values import Counter, Family, Histogram, Kind, LabelLimit, Metric
from broker.server.watch import ServerWatch

__all__ = [
    "AgentGroups",
    "ServerCounts",
]


_MAX_GROUPS = 20
_MAX_TYPES = 50
_GROUPS_FRESH_S = 60.0
_NO_GROUP = "none"
_UNKNOWN_TYPE = "unknown"
_STATUS = "status"
_HOP_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
_TURN_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HOP_OF_STATE = {CommandState.ACCEPTED: "stored", CommandState.RUNNING: "started"}
_HOPS = ("sent", "stored", "started", "finished", "reported", "acked")
_FIRST, _AGAIN = ("first",), ("again",)
_REFUSED_FOR = (
    "agent_floods",
    "blob_request_refused",
    "feedback_refused",
    "message_failed",
    "status_of_another_agent",
    "status_refused",
    "unknown_topic",
)
_REFUSED_BY_AGENTS_FOR = (ErrorCode.REJECTED, ErrorCode.SUPERSEDED)

SENT = Metric(
    "acm_commands_sent_total",
    Kind.COUNTER,
    "Commands that were published to agents, for the first time or again because they were not answered.",
    ("attempt",),
)
CANCELS = Metric("acm_cancels_sent_total", Kind.COUNTER, "Cancels that were published to agents.")
RESULTS = Metric(
    "acm_results_total",
    Kind.COUNTER,
    "Results of agents that were stored, by type of the command, outcome, and the agent's first group by name.",
    ("type", "outcome", "group"),
)
ERRORS = Metric(
    "acm_result_errors_total",
    Kind.COUNTER,
    "Commands that ended with an error, by its code, and by who completed them: the agent or the server.",
    ("code", "by"),
)
HOPS = Metric(
    "acm_command_hop_seconds",
    Kind.HISTOGRAM,
    "Time from one hop of a command to the next one, by the name of the later hop.",
    ("hop",),
)
TOTAL = Metric(
    "acm_command_duration_seconds", Kind.HISTOGRAM, "Time from the creation of a command to the result of its agent."
)
GAPS = Metric("acm_gaps_total", Kind.COUNTER, "Gaps in the sequence of commands that agents reported.")
EPOCHS = Metric("acm_epochs_total", Kind.COUNTER, "Epochs of sequence numbers that began, such as for a lost store.")
RECEIVED = Metric(
    "acm_reports_received_total", Kind.COUNTER, "What agents reported, by its kind, also repeatedly.", ("kind",)
)
ACKS = Metric("acm_acks_sent_total", Kind.COUNTER, "Results that were acknowledged to agents, also repeatedly.")
REFUSED = Metric(
    "acm_messages_refused_total",
    Kind.COUNTER,
    "Messages of agents that the server refused or dropped, by the event in its log.",
    ("reason",),
)
REFUSED_BY_AGENTS = Metric(
    "acm_messages_refused_by_agents_total",
    Kind.COUNTER,
    "Commands whose message or number an agent refused, so that they are sent again.",
    ("code",),
)
TURNS = Metric("acm_server_turn_seconds", Kind.HISTOGRAM, "Time of a turn of the server's loop that had work.")
FAILED_TURNS = Metric(
    "acm_server_failed_turns_total", Kind.COUNTER, "Turns of the server's loop in which the ledger could not be used."
)


class AgentGroups:
    """The first group of each agent by name, at most a minute old if `refresh` is called often; `none` without one."""

    def __init__(self, groups: GroupStore, monotonic: Callable[[], float]) -> None:
        self._groups = groups
        self._monotonic = monotonic
        self._fresh_until = monotonic()
        self._first: Mapping[str, str] = {}

    def __call__(self, agent: str) -> str:
        """Return the agent's group."""
        return self._first.get(agent, _NO_GROUP)

    def refresh(self) -> None:
        """Read the groups if they are older than a minute; they stay as they are while the ledger cannot be read."""
        if self._monotonic() < self._fresh_until:
            return
        self._fresh_until = self._monotonic() + _GROUPS_FRESH_S
        with suppress(LedgerError):
            first: dict[str, str] = {}
            for group, agents in self._groups.all().items():
                for agent in agents:
                    first.setdefault(agent, group)
            self._first = first


class ServerCounts(ServerWatch):
    """The counters of a server's loop. `families` may be called by another thread.

    `now` is the ledger's clock. The labels `type` and `group` have the first 50 and 20 values that occur, and `other`
    for all later ones.
    """

    def __init__(self, groups: AgentGroups, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._now, self._monotonic = now, monotonic
        self._groups = groups
        self._type, self._group = LabelLimit(_MAX_TYPES), LabelLimit(_MAX_GROUPS)
        self._recording_since = 0.0
        self._sent = Counter(SENT, [_FIRST, _AGAIN])
        self._cancels, self._gaps, self._epochs, self._acks = map(Counter, (CANCELS, GAPS, EPOCHS, ACKS))
        self._results = Counter(RESULTS)
        self._refused = Counter(REFUSED, [(reason,) for reason in _REFUSED_FOR])
        self._refused_by_agents = Counter(REFUSED_BY_AGENTS, [(str(code),) for code in _REFUSED_BY_AGENTS_FOR])
        self._errors = Counter(ERRORS, [(str(code), by) for code in ErrorCode for by in ("agent", "server")])
        self._received = Counter(RECEIVED, [*((str(kind),) for kind in FeedbackKind), (_STATUS,)])
        self._hops = Histogram(HOPS, _HOP_BOUNDS, [(hop,) for hop in _HOPS])
        self._total = Histogram(TOTAL, _HOP_BOUNDS)
        self._turns = Histogram(TURNS, _TURN_BOUNDS)
        self._failed_turns = Counter(FAILED_TURNS)

    def families(self) -> Iterator[Family]:
        """Return all counts up to now."""
        self._groups.refresh()
        counters = (self._sent, self._cancels, self._results, self._errors, self._gaps, self._epochs, self._received)
        others = (self._acks, self._refused, self._refused_by_agents, self._failed_turns)
        for counted in (*counters, *others, self._hops, self._total, self._turns):
            yield counted.family()

    def claimed(self, claimed: Claimed) -> None:
        """Count what is published."""
        self._cancels.add(amount=len(claimed.cancels))
        first = [command.waited_s for _, command in claimed.commands if command.waited_s is not None]
        self._sent.add(*_FIRST, amount=len(first))
        self._sent.add(*_AGAIN, amount=len(claimed.commands) - len(first))
        for waited_s in first:
            self._hops.observe(waited_s, "sent")

    def recording(self) -> None:
        """Note the time from which the acks of a turn are awaited."""
        self._recording_since = self._monotonic()

    def recorded(self, said: Mapping[str, Sequence[Said]], turn: RecordedTurn) -> None:
        """Count what agents have said, and the commands that it completed."""
        self._epochs.add(amount=turn.epochs)
        reports = chain.from_iterable(said.values())
        kinds = Tally(it.kind if isinstance(it, Feedback) else _STATUS for it in reports)
        for kind, count in kinds.items():
            self._received.add(kind, amount=count)
        self._gaps.add(amount=kinds[FeedbackKind.GAP])
        acks = sum(len(recorded.acks) for _, recorded in turn.feedback)
        if acks:
            self._acks.add(amount=acks)
            self._hops.observe(self._monotonic() - self._recording_since, "acked", count=acks)
        now = self._now().timestamp()
        for agent, recorded in turn.feedback:
            self._count_recorded(agent, recorded, now)

    def _count_recorded(self, agent: str, recorded: Recorded, now: float) -> None:
        for refused in recorded.refused:
            self._refused_by_agents.add(refused.code or "")
        for reached in recorded.reached:
            if reached.seconds is not None:
                self._hops.observe(max(0.0, reached.seconds), _HOP_OF_STATE[reached.state])
        for completed in recorded.completed:
            self._count_completed(agent, completed, now)

    def _count_completed(self, agent: str, completed: Completed, now: float) -> None:
        result = completed.result
        command_type = self._type(completed.type or _UNKNOWN_TYPE)
        self._results.add(command_type, result.outcome or Outcome.ERROR, self._group(self._groups(agent)))
        if result.code is not None:
            self._errors.add(result.code, "agent")
        if result.finished_at is not None:
            if result.started_at is not None:
                self._hops.observe(_seconds(result.started_at, result.finished_at), "finished")
            self._hops.observe(max(0.0, now - result.finished_at.timestamp()), "reported")
        if completed.created_at is not None:
            self._total.observe(max(0.0, now - completed.created_at))

    def completed_by_server(self, code: ErrorCode, count: int = 1) -> None:
        """Count commands that the server completed."""
        self._errors.add(code, "server", amount=count)

    def refused(self, reason: str, count: int = 1) -> None:
        """Count messages that were refused."""
        self._refused.add(reason, amount=count)

    def turn_ended(self, seconds: float, *, failed: bool) -> None:
        """Count a turn."""
        self._turns.observe(seconds)
        if failed:
            self._failed_turns.add()


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())
