"""A row in which the API serves clients on the ledger of a server that works at its limit."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring.commands import agent_names
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.percentiles import percentile
from benchmarks.measuring.ports import free_port
from benchmarks.measuring.processes import cpu_s, peak_mb
from benchmarks.measuring.report import Row
from benchmarks.server.api_process import api_process
from benchmarks.server.burst import Burst, burst, middle
from benchmarks.server.options import Options
from benchmarks.server.site import Site
from broker.access.access_tokens import AccessTokenStore
from broker.fleet.models import Principal, Role

__all__ = ["beside_api"]

_CLIENTS = 200
_CLIENTS_OF_ALL = 10  # follow all events; the others those of one agent each
_TOKENS = 4  # so that none exceeds its rate
_LEAST_RATE = 0.95


@dataclass
class _Served:
    """What the API and its clients used and got in one run."""

    expected: int = 0
    api_cpu_s: float = 0.0
    api_peak_mb: float = 0.0
    got: dict[str, Any] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether each client of all events got each of them once."""
        return set(self.got["events_of_all"]) == {self.expected}


def beside_api(options: Options) -> Row:
    """Commands become due, with and without clients that list agents and commands, and follow events."""
    agents, each = options.scaled(10_000), 2
    row = Row(f"API with {agents:,} agents: lists, filters and {_CLIENTS} clients that follow events")
    alone: list[Burst] = []
    beside: list[Burst] = []
    served: list[_Served] = []
    for _ in range(options.rounds):
        alone.append(burst(agents, each, status_pause_s=options.status_pause_s))
        served.append(_Served())
        run = burst(
            agents, each, status_pause_s=options.status_pause_s, beside=lambda place: _clients(place, served[-1])
        )
        beside.append(run)
    lists_ms = [taken for it in served for taken in it.got["lists_ms"]]
    row.figures = middle(alone).figures("without the API: ") | middle(beside).figures("beside it: ")
    row.figures |= {
        "rate beside it, to that without": middle(beside).per_s / middle(alone).per_s,
        "API CPU, s": median(it.api_cpu_s for it in served),
        "API RSS at most, MB": max(it.api_peak_mb for it in served),
        "a list, p50, ms": median(lists_ms),
        "a list, p95, ms": percentile(lists_ms, 95),
    }
    kept = middle(alone).server_us / middle(beside).server_us
    complete = sum(it.is_complete for it in served)
    row.goals = [
        Goal(f"{row.title}: rate of the server's loop, to that without", kept, _LEAST_RATE),
        Goal(f"{row.title}: runs in which all events arrived once", complete, len(served)),
        Goal(f"{row.title}: runs in which all results were acked", sum(it.complete for it in beside), len(beside)),
    ]
    return row


@contextmanager
def _clients(place: Site, served: _Served) -> Iterator[None]:
    """Serve the clients meanwhile, and until each has the last event."""
    with place.ledger() as ledger:
        tokens = AccessTokenStore(ledger.database, now=lambda: datetime.now(UTC))
        who = [Principal(f"bench-{number}", Role.VIEWER) for number in range(_TOKENS)]
        texts = [tokens.add(it, timedelta(days=1), "bench")[1] for it in who]
        names = agent_names(_CLIENTS - _CLIENTS_OF_ALL)
        known = set(ledger.agent_names())
        agents = [*(it if it in known else names[0] for it in names), *[None] * _CLIENTS_OF_ALL]
        port = free_port()
        setting = {"host": "127.0.0.1", "port": port, "tokens": texts, "agents": agents}
        file = place.directory / "clients.json"
        file.write_text(json.dumps(setting))
        with api_process(place.url, port, place.directory / "api.log") as api, _client_process(file) as clients:
            assert clients.stdout
            assert json.loads(clients.stdout.readline())["following"] == _CLIENTS
            start, before_s = ledger.events.end(), cpu_s(api.pid)
            yield
            end = ledger.events.end()
            served.got = json.loads(clients.communicate(f"{end}\n", timeout=240)[0])
            served.expected = end - start
            served.api_cpu_s, served.api_peak_mb = cpu_s(api.pid) - before_s, peak_mb(api.pid)


@contextmanager
def _client_process(setting: Path) -> Iterator["subprocess.Popen[str]"]:
    argv = [sys.executable, "-m", "benchmarks.server.api_clients", str(setting)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
