"""The metrics of an agent: counts of what it does, and what it has now."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from broker.contract.states import Outcome
from broker.metrics.common import CERTIFICATE_EXPIRY
from broker.metrics.values import Counter, Family, Histogram, Kind, LabelLimit, Metric, Source, gauge
from consumer.engine.status import StatusBuilder
from consumer.engine.watch import AgentWatch
from consumer.ports import StoredCommand
from consumer.store.command_store import DiskCommandStore

__all__ = [
    "AgentCounts",
    "of_certificate",
    "of_store",
]


_MAX_TYPES = _MAX_CODES = 50
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
_FIRST, _AGAIN = ("first",), ("again",)

COMMANDS = Metric(
    "acm_agent_commands_total",
    Kind.COUNTER,
    "Commands that got their result on this agent, by type and outcome.",
    ("type", "outcome"),
)
WAIT = Metric(
    "acm_agent_command_wait_seconds", Kind.HISTOGRAM, "Time from the arrival of a command to its begin, by its agent."
)
RUN = Metric("acm_agent_command_run_seconds", Kind.HISTOGRAM, "Time from the begin of a command to its end.")
SENT = Metric(
    "acm_agent_results_sent_total",
    Kind.COUNTER,
    "Results that the agent sent, for the first time or again: they were not acknowledged, or it was restarted.",
    ("attempt",),
)
REFUSED = Metric(
    "acm_agent_messages_refused_total",
    Kind.COUNTER,
    "Messages and commands that the agent refused, by code, also repeatedly.",
    ("code",),
)
GAPS = Metric("acm_agent_gaps_total", Kind.COUNTER, "Gaps in the sequence of commands that the agent reported.")
COMMITS = Metric(
    "acm_agent_commits_total", Kind.COUNTER, "Commits of the command store; each is one fsync of its write-ahead log."
)
QUEUE = Metric(
    "acm_agent_queue_commands",
    Kind.GAUGE,
    "Commands that wait for their turn, and those whose results wait for their ack.",
    ("state",),
)
SIZE = Metric("acm_agent_store_size_bytes", Kind.GAUGE, "Size of the command store, with its write-ahead log.")
PROBLEMS = Metric(
    "acm_agent_problem", Kind.GAUGE, "1 for each problem in the agent's last status, by its code.", ("problem",)
)


class AgentCounts(AgentWatch):
    """The counters of an agent; its main loop counts, and another thread may call `families`."""

    def __init__(self) -> None:
        self._type = LabelLimit(_MAX_TYPES)
        self._code = LabelLimit(_MAX_CODES)
        self._commands, self._refused, self._gaps = map(Counter, (COMMANDS, REFUSED, GAPS))
        self._sent = Counter(SENT, [_FIRST, _AGAIN])
        self._wait, self._run = Histogram(WAIT, _BOUNDS), Histogram(RUN, _BOUNDS)

    def families(self) -> Iterator[Family]:
        """Return all counts up to now."""
        for counted in (self._commands, self._sent, self._refused, self._gaps, self._wait, self._run):
            yield counted.family()

    def committed(self, begun: Sequence[StoredCommand], ended: Sequence[StoredCommand]) -> None:
        """Count commands that were begun and ended."""
        for stored in begun:
            if stored.started_at is not None:
                self._wait.observe(_seconds(stored.received_at, stored.started_at))
        for stored in ended:
            result = stored.result.feedback if stored.result else None
            if result is None:
                continue
            self._commands.add(self._type(stored.command.type), result.outcome or Outcome.ERROR)
            if result.started_at is not None and result.finished_at is not None:
                self._run.observe(_seconds(result.started_at, result.finished_at))

    def result_sent(self, *, again: bool) -> None:
        """Count a result that was sent."""
        self._sent.add(*(_AGAIN if again else _FIRST))

    def refused(self, code: str) -> None:
        """Count a message or a command that was refused."""
        self._refused.add(self._code(code))

    def gap_reported(self) -> None:
        """Count a gap that was reported."""
        self._gaps.add()


def of_store(store: DiskCommandStore, status: StatusBuilder) -> Source:
    """Return the source of the metrics of a store, and of the problems in the last status."""

    def families() -> Iterator[Family]:
        yield Family(COMMITS, {(): store.commits})
        yield gauge(QUEUE, {("pending",): store.pending_count(), ("done",): store.done_count()})
        yield gauge(SIZE, store.size_bytes)
        problems = status.last.problems if status.last else None
        yield gauge(PROBLEMS, {(problem,): 1 for problem in problems or ()})

    return families


def of_certificate(end: Callable[[], datetime | None]) -> Source:
    """Return the source of the end of the agent's certificate; None: it has none."""

    def families() -> Iterator[Family]:
        found = end()
        yield gauge(CERTIFICATE_EXPIRY, {} if found is None else {("certificate.pem",): found.timestamp()})

    return families


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())
