"""Rows in which a whole fleet speaks at once: it comes back after a loss of the broker, or has just been installed."""

import time
from time import monotonic

from benchmarks.measuring.commands import agent_names
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.processes import cpu_s, peak_mb
from benchmarks.measuring.report import Row
from benchmarks.server.lock_probe import lock_probe
from benchmarks.server.options import Options
from benchmarks.server.site import fill, known_since, site, wait_until

__all__ = ["first_statuses", "returning"]

_TIMEOUT_S = 240.0


def returning(options: Options) -> Row:
    """The fleet loses the broker and comes back, with a command waiting for each agent."""
    agents = options.scaled(10_000)
    names = agent_names(agents)
    row = Row(f"{agents:,} agents come back, a command waiting for each")
    with (
        site(None, options.status_pause_s) as place,
        place.acm_server() as server,
        place.fleet(names) as fleet,
        place.ledger() as ledger,
    ):
        fleet.connect()
        wait_until(lambda: known_since(ledger, 0) >= agents, "all agents to be known", _TIMEOUT_S)
        place.broker.stop()
        fill(ledger, names, 1)
        fleet.reset()
        fleet.begin_wait(1)
        began, spent = time.time(), cpu_s(server.pid)
        with lock_probe(place.url) as probe:
            place.broker.start()
            connected = fleet.expect("connected", _TIMEOUT_S)
            known = wait_until(lambda: known_since(ledger, began) >= agents, "all to be known again", _TIMEOUT_S)
            acked = fleet.expect("acked", _TIMEOUT_S)
        counts = fleet.counts()
        row.figures = {
            "all known, s after the last connection": known - connected,
            "all results acked, s after the last connection": acked - connected,
            "commands sent twice": counts.commands_again,
            "results sent twice": counts.results_again,
            "longest wait of another writer, s": probe.longest_s,
            "server CPU, s": cpu_s(server.pid) - spent,
            "server RSS at most, MB": peak_mb(server.pid),
        }
    row.goals = [
        Goal(f"{row.title}: all known", max(0.0, known - connected), 3, is_ceiling=True, unit="s"),
        Goal(f"{row.title}: all results", max(0.0, acked - connected), 6, is_ceiling=True, unit="s"),
        Goal(f"{row.title}: longest transaction", probe.longest_s, 0.5, is_ceiling=True, unit="s"),
    ]
    return row


def first_statuses(options: Options) -> Row:
    """All agents of a new fleet publish their first statuses at once."""
    agents = options.scaled(10_000)
    names = agent_names(agents)
    row = Row(f"{agents:,} new agents' first statuses")
    with (
        site(None, options.status_pause_s) as place,
        place.acm_server() as server,
        place.fleet(names) as fleet,
        place.ledger() as ledger,
    ):
        fleet.connect(statuses=False)
        began, spent = monotonic(), cpu_s(server.pid)
        with lock_probe(place.url) as probe:
            fleet.call("statuses")
            known = wait_until(lambda: known_since(ledger, 0) >= agents, "all agents to be known", _TIMEOUT_S)
        row.figures = {
            "all known, s": known - began,
            "server CPU, µs a status": (cpu_s(server.pid) - spent) / agents * 1e6,
            "longest wait of another writer, s": probe.longest_s,
            "server RSS at most, MB": peak_mb(server.pid),
        }
    row.goals = [Goal(f"{row.title}: all known", known - began, 5, is_ceiling=True, unit="s")]
    return row
