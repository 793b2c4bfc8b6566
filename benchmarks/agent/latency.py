"""Rows with few commands: how long one takes, through the agent and all the way from the ledger and back."""

import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import psycopg

from benchmarks.agent.driver import command_name, driven, running
from benchmarks.agent.options import Options
from benchmarks.agent.subjects import AGENT
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.ledger_rows import NO_OP
from benchmarks.measuring.limits import fsync_us
from benchmarks.measuring.percentiles import percentile
from benchmarks.measuring.processes import cpu_s, switches
from benchmarks.measuring.report import Row
from benchmarks.server.databases import POOLED, ledgers
from benchmarks.server.site import known_since, site, wait_until

__all__ = ["latency", "wake_up"]

_PACED, _PER_SECOND, _WARM_UP = 200, 20, 20
_FSYNCS = 100
_LOOK_S = 0.0005
_PAUSE_S = 0.1, 0.2  # a random one: server and agent are idle, and a server that looks at times may have just looked


def latency(options: Options) -> Row:
    """Commands at a steady pace, beside an echo."""
    waits: dict[str, list[float]] = {"ours": [], "echo": []}
    costs: dict[str, list[tuple[float, float]]] = {"ours": [], "echo": []}
    for _ in range(options.rounds):
        for name in waits:
            measured, cost = _paced(name, options.scaled(_PACED))
            waits[name] += measured
            costs[name].append(cost)
    row = Row(f"latency at {_PER_SECOND} commands a second")
    for name, values in waits.items():
        row.figures |= {f"{name}: p50, ms": statistics.median(values), f"{name}: p99, ms": percentile(values, 99)}
        row.figures[f"{name}: CPU, ms a command"] = statistics.median(cost[0] for cost in costs[name])
        row.figures[f"{name}: voluntary switches a command"] = statistics.median(cost[1] for cost in costs[name])
    middle = statistics.median(waits["ours"])
    fsync = fsync_us(_FSYNCS, 1 / _PER_SECOND)
    row.figures |= {"an fsync at this pace, µs": fsync, "share of two fsyncs in our p50": 2 * fsync / 1000 / middle}
    row.goals = [
        Goal("latency: p50, to the echo", middle / statistics.median(waits["echo"]), 2.0, True, reach=1.8),
        Goal("latency: p99, to the echo", percentile(waits["ours"], 99) / percentile(waits["echo"], 99), 3, True),
    ]
    return row


def wake_up(options: Options) -> Row:
    """The way of a command from `add_command` to its result in the ledger, through a server and an agent that idle."""
    row = Row("from add_command to the result in the ledger")
    for name, url in ledgers():
        values = _from_ledger_to_ledger(url, options.scaled(_PACED))
        middle = statistics.median(values)
        row.figures |= {f"{name}: p50, ms": middle, f"{name}: p99, ms": percentile(values, 99)}
        if name != POOLED:  # behind it the server learns of no commit, and looks 20 times a second
            row.goals.append(Goal(f"{name}: p50 from add_command to the result", middle, 8, True, unit="ms"))
    return row


def _paced(name: str, count: int) -> tuple[list[float], tuple[float, float]]:
    with driven(name, count) as (driver, subject):
        subject.go()
        sent: dict[str, float] = {}
        time.sleep(1.0)
        spent, switched = cpu_s(subject.pid), switches(subject.pid)
        for number in range(1, count + 1):
            sent[command_name(number)] = monotonic()
            driver.publish(number)
            end = monotonic() + 1 / _PER_SECOND
            while (left := end - monotonic()) > 0:
                driver.receive(left)
        driver.listen(until_empty=False, count=count)
        cost = (cpu_s(subject.pid) - spent) * 1000 / count, (switches(subject.pid) - switched) / count
        waits = [(driver.arrived[name] - moment) * 1000 for name, moment in sent.items()]
        return waits[min(_WARM_UP, count // 2) :], cost


def _from_ledger_to_ledger(url: str | None, count: int) -> list[float]:
    with (
        site(url) as place,
        place.acm_server(),
        tempfile.TemporaryDirectory(prefix="acm-bench-") as directory,
        running("ours", place.broker.url, Path(directory) / "state", 0) as subject,
        place.ledger() as ledger,
        _looking(place.url) as is_completed,
    ):
        subject.go()
        wait_until(lambda: known_since(ledger, 0) == 1, "the agent to be known")
        values = []
        for _ in range(count):
            time.sleep(random.uniform(*_PAUSE_S))
            began = monotonic()
            name = ledger.add_command(AGENT, NO_OP).id
            while not is_completed(name):
                time.sleep(_LOOK_S)
            values.append((monotonic() - began) * 1000)
        return values[min(_WARM_UP, count // 2) :]


@contextmanager
def _looking(url: str) -> Iterator[Callable[[str], bool]]:
    """Yield a cheap way to look whether a command has a result."""
    query = "SELECT completed_at FROM commands WHERE id = "
    if url.startswith("sqlite"):
        file = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        yield lambda name: file.execute(f"{query}?", (name,)).fetchone()[0] is not None
        file.close()
    else:
        plain = url.replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True, prepare_threshold=None) as connection:  # a pooler may forget them
            yield lambda name: _first(connection.execute(f"{query}%s", (name,)).fetchone()) is not None


def _first(row: tuple[object, ...] | None) -> object:
    return row[0] if row else None
