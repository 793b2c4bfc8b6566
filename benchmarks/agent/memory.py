"""Rows about an agent and a server that hold much, or do nothing."""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from benchmarks.agent.driver import Driver, Subject, driven, open_session, running
from benchmarks.agent.options import Options
from benchmarks.agent.subjects import AGENT
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.processes import cpu_s, private_mb, rss_mb
from benchmarks.measuring.report import Row
from benchmarks.server.databases import ledgers
from benchmarks.server.site import known_since, site, wait_until
from broker.mosquitto.process import EmbeddedMosquitto

__all__ = ["full_store", "idle", "waiting_results"]

_RESULTS, _WINDOW = 20_000, 1_000
_SENT_AGAIN = 0.5  # most are due once while the row watches; their waits grow, at random
_SETTLE_S, _WATCHED_S, _POKES_PER_S = 5.0, 10.0, 20
_STORED = 100_000
_IDLE_S = 30.0
_IDLE_GOALS = (("agent", 0.06, 45), ("server on SQLite", 0.3, 60))  # % of a core, MB


def waiting_results(options: Options) -> Row:
    """The agent has results whose acks do not come, and small messages that wake it."""
    count = options.scaled(_RESULTS)
    row = Row(f"{count:,} results wait for their acks")
    with driven("ours", count) as (driver, subject):
        driver.acks = False
        driver.fill(count)
        subject.go()
        driver.listen(until_empty=False, count=count)
        _listen_for(driver, _SETTLE_S)
        turns, spent, before = _turns(subject), cpu_s(subject.pid), Counter(driver.results)
        for _ in range(round(_WATCHED_S * _POKES_PER_S)):
            driver.connection.publish(f"acm/{AGENT}/ack", b'{"command_id":"none","digest":"none"}')
            _listen_for(driver, 1 / _POKES_PER_S)
        taken, cpu = _turns(subject) - turns, cpu_s(subject.pid) - spent
        again = driver.results - before
    row.figures = {
        "CPU, ms a turn": cpu / taken * 1000,
        "turns": taken,
        f"results sent again in {_WATCHED_S:g} s": sum(again.values()),
        "commands whose results they are": len(again),
    }
    row.goals = [
        Goal(f"{row.title}: CPU an idle turn", cpu / taken * 1000, 0.3, is_ceiling=True, unit="ms"),
        Goal(f"{row.title}: commands whose results are sent again", len(again), _WINDOW, is_ceiling=True),
        Goal(f"{row.title}: share of a window that is", len(again) / min(count, _WINDOW), _SENT_AGAIN),
    ]
    return row


def idle(options: Options) -> Row:
    """An agent, and a server on each database, as users run them, with nothing to do."""
    row = Row("idle")
    for database, url in ledgers():
        _idle_on(url, f"server on {database}", row, max(5.0, _IDLE_S * options.scale))
    for name, percent, size in _IDLE_GOALS:
        measured = row.figures[f"{name}: % of a core"], row.figures[f"{name}: RSS, MB"]
        row.goals.append(Goal(f"idle {name}: % of a core", measured[0], percent, is_ceiling=True))
        row.goals.append(Goal(f"idle {name}: RSS", measured[1], size, is_ceiling=True, unit="MB"))
    return row


def _idle_on(url: str | None, name: str, row: Row, seconds: float) -> None:
    with (
        site(url) as place,
        place.acm_server() as server,
        _real_agent(place.broker.url) as agent,
        place.ledger() as ledger,
    ):
        wait_until(lambda: known_since(ledger, 0) == 1, "the agent to be known")
        time.sleep(_SETTLE_S)
        processes = {name: server.pid} if url else {"agent": agent.pid, name: server.pid}
        spent = {name: cpu_s(pid) for name, pid in processes.items()}
        began = monotonic()
        time.sleep(seconds)
        passed = monotonic() - began
        for name, pid in processes.items():
            row.figures[f"{name}: % of a core"] = (cpu_s(pid) - spent[name]) / passed * 100
            row.figures[f"{name}: RSS, MB"] = rss_mb(pid)
            row.figures[f"{name}: memory of its own, MB"] = private_mb(pid)


def full_store(options: Options) -> Row:
    """An agent with a store full of commands that wait: its memory, and its next start."""
    count = options.scaled(_STORED)
    row = Row(f"{count:,} commands in the store")
    with EmbeddedMosquitto() as broker, tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        state = Path(directory) / "state"
        open_session(broker)
        driver = Driver(broker)
        with running("blocked", broker.url, state, 0) as subject, driver.connection:
            assert driver.connection.wait_connected(10)
            subject.go()
            driver.fill(1)
            wait_until(lambda: _accepted(driver) == 1, "the first command to begin")
            before = rss_mb(subject.pid)
            driver.fill(count - 1, per_frame=50, first=2)
            wait_until(lambda: _accepted(driver) >= count, "all commands to be stored", 240)
            more = rss_mb(subject.pid) - before
        row.figures["memory, MB more than with one"] = more
        began = monotonic()
        with running("begun", broker.url, state, 0) as subject:
            subject.go()
            first = float(subject.line()) - began
            row.figures |= {"first command, s after the start": first, "CPU until then, s": cpu_s(subject.pid)}
    row.goals = [
        Goal(f"{row.title}: memory", more, 60, is_ceiling=True, unit="MB more"),
        Goal(f"{row.title}: first command", first, 1, is_ceiling=True, unit="s"),
    ]
    return row


@contextmanager
def _real_agent(broker: str) -> Iterator["subprocess.Popen[bytes]"]:
    program = Path(sys.executable).with_name("acm-agent")
    with tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        options = ["--agent", AGENT, "--broker", broker, "--state", f"{directory}/state", "--accept-unsigned"]
        with (Path(directory) / "log").open("wb") as log:
            process = subprocess.Popen([program, "run", *options], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def _listen_for(driver: Driver, seconds: float) -> None:
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        driver.receive(left)


def _turns(subject: Subject) -> int:
    subject.go()
    return int(subject.line())


def _accepted(driver: Driver) -> int:
    driver.receive()
    return driver.accepted
