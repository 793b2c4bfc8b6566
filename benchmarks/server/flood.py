"""Rows in which agents send more than the server can take in: one of them, or all."""

import statistics
import time
from time import monotonic

from benchmarks.fleet.driver import FleetProcesses
from benchmarks.measuring.commands import agent_names
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.ledger_rows import NO_OP, add_accepted
from benchmarks.measuring.percentiles import percentile
from benchmarks.measuring.processes import peak_mb, reset_peak, rss_mb
from benchmarks.measuring.report import Row
from benchmarks.server.options import Options
from benchmarks.server.site import Server, Site, known_since, site, wait_until
from broker.ledger.ledger import Ledger

__all__ = ["flood", "overload"]

_TIMEOUT_S = 300.0
_PACED_S = 10.0
_PACE_S = 0.1
_IN_FLIGHT = 4_000  # results, while no agent sends faster than its results are acked
_IN_TURN, _AT_THREE_TIMES, _AFTERWARDS = 5, 80, 5  # frames of each agent
_FEWEST_AGENTS, _FEWEST_IN_FRAME = 200, 4  # at a small scale, with few in flight, the wait for the disk is the limit
_OVERLOAD_S = 10.0
_MAX_MORE_MB = 100.0


def flood(options: Options) -> Row:
    """One agent sends 100,000 results at once, while others get a command every ten seconds."""
    results, others = options.scaled(100_000), options.scaled(1_000)
    row = Row(f"one agent with {results:,} results beside {others:,} others")
    names, name = agent_names(others), agent_names(1, "flood")
    with (
        site(None, options.status_pause_s) as place,
        place.acm_server() as server,
        place.fleet(names, processes=1) as fleet,
        place.fleet(name, processes=1) as busy,
        place.ledger() as ledger,
    ):
        fleet.connect()
        busy.connect()
        wait_until(lambda: known_since(ledger, 0) > others, "all agents to be known", _TIMEOUT_S)
        _accept(place, server, ledger, busy, results)
        alone = _paced(ledger, fleet)
        reset_peak(server.pid)
        busy.begin_wait(results)
        began = monotonic()
        busy.call("end", first=1, last=results, per_frame=200)
        beside = _paced(ledger, fleet)
        lasted = busy.expect("acked", _TIMEOUT_S) - began
        row.figures = {
            "the others' p50 without it, ms": statistics.median(alone),
            "the others' p50 beside it, ms": statistics.median(beside),
            "the others' p95 without it, ms": percentile(alone, 95),
            "the others' p95 beside it, ms": percentile(beside, 95),
            "results/s of the one": results / lasted,
            "results sent twice": busy.counts().results_again,
            "server RSS at most, MB": peak_mb(server.pid),
        }
    row.goals = [
        Goal(
            f"{row.title}: the others' p95, to that without it", percentile(beside, 95) / percentile(alone, 95), 2, True
        )
    ]
    return row


def overload(options: Options) -> Row:
    """Agents send results at three times the server's capacity for a while."""
    agents = max(_FEWEST_AGENTS, options.scaled(1_000))
    per_frame = max(_FEWEST_IN_FRAME, options.scaled(_IN_FLIGHT) // agents)
    in_turn, at_three_times, afterwards_each = (it * per_frame for it in (_IN_TURN, _AT_THREE_TIMES, _AFTERWARDS))
    row = Row(f"{agents:,} agents send results at 3 x capacity")
    with (
        site(None, options.status_pause_s) as place,
        place.acm_server() as server,
        place.fleet(agent_names(agents)) as fleet,
        place.ledger() as ledger,
    ):
        fleet.connect()
        wait_until(lambda: known_since(ledger, 0) >= agents, "all agents to be known", _TIMEOUT_S)
        first, then = in_turn + 1, in_turn + at_three_times + 1
        _accept(place, server, ledger, fleet, then + afterwards_each - 1)
        peak = _in_turn(fleet, 1, in_turn, per_frame)
        before = rss_mb(server.pid)
        reset_peak(server.pid)
        each = min(at_three_times, round(3 * peak * _OVERLOAD_S / agents) + 1)
        fleet.reset()
        fleet.begin_wait(each)
        began, began_at = monotonic(), time.time()
        fleet.call_at_rate("end", 3 * peak, first=first, last=first + each - 1, per_frame=per_frame)
        ended = fleet.expect("ended", _TIMEOUT_S)
        recovered = fleet.expect("acked", _TIMEOUT_S)
        counts = fleet.counts()
        until = began_at + ended - began
        rate = sum(at <= until for at, _ in counts.acks) / (ended - began)
        more = peak_mb(server.pid) - before
        afterwards = _in_turn(fleet, then, then + afterwards_each - 1, per_frame)
        row.figures = {
            "peak, results/s": peak,
            "results sent in all": agents * each,
            "lasted, s": ended - began,
            "meanwhile, results/s": rate,
            "all acked, s after its end": recovered - ended,
            "whole rate until then, results/s": agents * each / (recovered - began),
            "results sent twice": counts.results_again,
            "server memory at most, MB more": more,
            "afterwards, results/s": afterwards,
        }
    row.goals = [
        Goal(f"{row.title}: throughput, to its peak", rate / peak, 0.8),
        Goal(f"{row.title}: memory", more, _MAX_MORE_MB, is_ceiling=True, unit="MB more"),
        Goal(f"{row.title}: throughput afterwards, to its peak", afterwards / peak, 0.8),
    ]
    return row


def _accept(place: Site, server: Server, ledger: Ledger, fleet: FleetProcesses, each: int) -> None:
    """Let ledger and agents believe that each has accepted so many commands, which are not run yet."""
    with server.stopped(place.ledger_file):
        epoch = add_accepted(ledger, fleet.names, each)
        fleet.call("accepted", epoch=epoch, last=each)
        fleet.reset()


def _in_turn(fleet: FleetProcesses, first: int, last: int, per_frame: int) -> float:
    """Return results per second while no agent sends faster than its results are acked."""
    fleet.reset()
    began = monotonic()
    fleet.call("end_in_turn", first=first, last=last, per_frame=per_frame)
    ended = fleet.wait_for_acks(last - first + 1, _TIMEOUT_S)
    return (last - first + 1) * len(fleet.names) / (ended - began)


def _paced(ledger: Ledger, fleet: FleetProcesses) -> list[float]:
    """Send each agent one command, evenly within a while; return the milliseconds until each ack."""
    steps = round(_PACED_S / _PACE_S)
    fleet.reset()
    fleet.begin_wait(1)
    began = monotonic()
    for step in range(steps):
        if due := fleet.names[step::steps]:
            ledger.add_operation(due, "bench", NO_OP)
        time.sleep(max(0.0, began + (step + 1) * _PACE_S - monotonic()))
    fleet.expect("acked", _TIMEOUT_S)
    return [latency * 1000 for _, latency in fleet.counts().acks]
