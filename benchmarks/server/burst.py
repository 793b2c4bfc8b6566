"""A row in which many commands become due at once: our server, ours with other means, and the naive one."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from time import monotonic

from benchmarks.fleet.driver import FleetProcesses
from benchmarks.measuring.commands import agent_names
from benchmarks.measuring.processes import cpu_s, peak_mb, rss_mb
from benchmarks.server import naive
from benchmarks.server.lock_probe import lock_probe
from benchmarks.server.site import Server, Site, fill, known_since, site, wait_until

__all__ = ["Burst", "burst", "middle", "naive_burst"]

_TIMEOUT_S = 240.0
_STATUSES_S = 0.5  # after the agents' pause: until the server has stored their last statuses


@dataclass(frozen=True)
class Burst:
    """One run: commands per second from the moment they are due until the last ack, and what it cost."""

    per_s: float
    seconds: float
    server_us: float
    broker_us: float
    fleet_us: float
    commands_again: int
    results_again: int
    statuses: int
    frames_a_command: float
    server_rss_mb: float
    server_peak_mb: float
    server_kb_an_agent: float
    broker_kb_an_agent: float
    commits: int | None
    longest_wait_s: float
    complete: bool

    def figures(self, prefix: str = "") -> dict[str, float | None]:
        """Return the figures under names for people."""
        names = {
            "per_s": "commands/s",
            "seconds": "s until the last ack",
            "server_us": "server CPU, µs a command",
            "broker_us": "broker CPU, µs a command",
            "fleet_us": "fleet CPU, µs a command",
            "commands_again": "commands sent twice",
            "results_again": "results sent twice",
            "statuses": "statuses",
            "frames_a_command": "frames a command",
            "server_rss_mb": "server RSS, MB",
            "server_peak_mb": "server RSS at most, MB",
            "server_kb_an_agent": "server memory, KB an agent",
            "broker_kb_an_agent": "broker memory, KB an agent",
            "commits": "commits of the ledger",
            "longest_wait_s": "longest wait of another writer, s",
        }
        values = asdict(self)
        return {f"{prefix}{text}": values[name] for name, text in names.items()}


def burst(
    agents: int,
    each: int,
    *,
    url: str | None = None,
    signed: bool = False,
    status_pause_s: float,
    metrics: str | None = None,
    beside: Callable[[Site], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> Burst:
    """Let `each` commands for each agent become due at once at our server, with what runs `beside` it.

    The server serves its metrics at `metrics`.
    """
    names = agent_names(agents)
    with site(url, status_pause_s) as place:
        if signed:
            place.enroll(names)
        with place.acm_server(metrics) as server, place.fleet(names) as fleet, place.ledger() as ledger:
            before = rss_mb(server.pid), rss_mb(place.broker_pid)
            fleet.connect()
            wait_until(lambda: known_since(ledger, 0) >= agents, "all agents to be known", _TIMEOUT_S)
            fleet.reset()
            with beside(place):
                with server.stopped(place.ledger_file):
                    fill(ledger, names, each)
                return _measured(place, server, fleet, each, before, place.url)


def naive_burst(agents: int, each: int, *, status_pause_s: float) -> Burst:
    """Let the same become due at the naive server."""
    names = agent_names(agents)
    with site(None, status_pause_s) as place, place.naive_server() as server, place.fleet(names) as fleet:
        before = rss_mb(server.pid), rss_mb(place.broker_pid)
        fleet.connect()
        ledger = naive.open_ledger(place.naive_ledger)
        known = "SELECT count(*) FROM agents"
        wait_until(lambda: ledger.execute(known).fetchone()[0] >= agents, "all agents to be known", _TIMEOUT_S)
        ledger.close()
        fleet.reset()
        with server.stopped(place.naive_ledger):
            naive.fill(place.naive_ledger, names, each)
        return _measured(place, server, fleet, each, before, f"sqlite:///{place.naive_ledger}")


def _measured(
    place: Site, server: Server, fleet: FleetProcesses, each: int, before: tuple[float, float], url: str
) -> Burst:
    began, spent = monotonic(), _spent(place, server, fleet)
    with lock_probe(url) as probe:
        try:
            ended, complete = fleet.wait_for_acks(each, _TIMEOUT_S), True
        except TimeoutError:
            ended, complete = monotonic(), False
    time.sleep(place.status_pause_s + _STATUSES_S)  # their cost is part of a command's, but not of the rate
    used = [after - earlier for after, earlier in zip(_spent(place, server, fleet), spent, strict=True)]
    counts = fleet.counts()
    done = max(1, len(counts.acks))
    agents = len(fleet.names)
    return Burst(
        per_s=len(counts.acks) / (ended - began),
        seconds=ended - began,
        server_us=used[0] / done * 1e6,
        broker_us=used[1] / done * 1e6,
        fleet_us=used[2] / done * 1e6,
        commands_again=counts.commands_again,
        results_again=counts.results_again,
        statuses=counts.statuses,
        frames_a_command=counts.frames / done,
        server_rss_mb=rss_mb(server.pid),
        server_peak_mb=peak_mb(server.pid),
        server_kb_an_agent=(rss_mb(server.pid) - before[0]) * 1024 / agents,
        broker_kb_an_agent=(rss_mb(place.broker_pid) - before[1]) * 1024 / agents,
        commits=probe.commits,
        longest_wait_s=probe.longest_s,
        complete=complete,
    )


def _spent(place: Site, server: Server, fleet: FleetProcesses) -> tuple[float, float, float]:
    return cpu_s(server.pid), cpu_s(place.broker_pid), sum(cpu_s(process.pid) for process in fleet.processes)


def middle(runs: list[Burst]) -> Burst:
    """Return the run with the median rate."""
    return sorted(runs, key=lambda run: run.per_s)[len(runs) // 2]
