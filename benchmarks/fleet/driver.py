"""Drives a simulated fleet of several processes."""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

from benchmarks.fleet.agent import Tally

__all__ = ["FleetProcesses", "fleet"]

STATUS_PAUSE_S = 2.0  # `_COUNTERS_WAIT_S` of a real agent: consumer/engine/status.py


class FleetProcesses:
    """The processes; `names` are the agents'."""

    def __init__(self, names: Sequence[str], processes: "Sequence[_Process]", parts: Sequence[int]) -> None:
        self.names = list(names)
        self.processes = processes
        self._parts = parts

    def connect(self, timeout_s: float = 120, **options: Any) -> float:
        """Connect all agents; return when the last one was connected (monotonic)."""
        self.call("connect", **options)
        return self.expect("connected", timeout_s)

    def call(self, name: str, **arguments: Any) -> None:
        """Call a method of `Driven` in each process."""
        for process in self.processes:
            process.call(name, arguments)

    def call_at_rate(self, name: str, per_s: float, **arguments: Any) -> None:
        """Call a method with its share of a rate."""
        for process, part in zip(self.processes, self._parts, strict=True):
            process.call(name, {"per_s": per_s * part / len(self.names), **arguments})

    def wait_for_acks(self, each: int, timeout_s: float) -> float:
        """Wait until each agent has this many acks on average; return when that was (monotonic)."""
        self.begin_wait(each)
        return self.expect("acked", timeout_s)

    def begin_wait(self, each: int) -> None:
        """Let the processes report when each agent has this many acks on average."""
        for process, part in zip(self.processes, self._parts, strict=True):
            process.call("wait", {"acks": each * part})

    def counts(self) -> Tally:
        """Return what was counted since the last reset."""
        self.call("report")
        total = Tally()
        for fact in self._events("report", 60):
            for name in vars(total):
                setattr(total, name, getattr(total, name) + fact[name])
        total.acks.sort()
        return total

    def reset(self) -> None:
        """Count from zero."""
        self.call("reset")
        self._events("reset", 60)

    def expect(self, event: str, timeout_s: float) -> float:
        """Wait for an event in each process; return the latest of their times."""
        return max(float(fact["at"]) for fact in self._events(event, timeout_s))

    def _events(self, event: str, timeout_s: float) -> list[dict[str, Any]]:
        end = monotonic() + timeout_s
        return [process.next(event, end) for process in self.processes]


class _Process:
    """One process of the fleet, and what it reports."""

    def __init__(self, setting: Path) -> None:
        argv = [sys.executable, "-m", "benchmarks.fleet", str(setting)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._facts: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._others: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def call(self, name: str, arguments: dict[str, Any]) -> None:
        """Call a method of `Driven` in it."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
        self._process.stdin.flush()

    def next(self, event: str, end: float) -> dict[str, Any]:
        """Return the next event of this name until the time `end`; others stay for later."""
        while not self._others[event]:
            try:
                fact = self._facts.get(timeout=max(0.0, end - monotonic()))
            except Empty:
                raise TimeoutError(f"The fleet has not reported {event!r} in time.") from None
            assert fact is not None, "A process of the fleet has ended; its error is above."
            self._others[fact["event"]].append(fact)
        return self._others[event].popleft()

    def end(self) -> None:
        """End it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(30)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._facts.put(json.loads(line))
        self._facts.put(None)


@contextmanager
def fleet(
    broker: tuple[str, int],
    names: Sequence[str],
    *,
    processes: int = 2,
    enrolments: Mapping[str, tuple[str, int]] | None = None,
    status_pause_s: float = STATUS_PAUSE_S,
) -> Iterator[FleetProcesses]:
    """Run a fleet of these agents, which are not connected yet. `enrolments`: id, and version of the trusted keys."""
    shares = [share for share in (names[first::processes] for first in range(processes)) if share]
    running: list[_Process] = []
    with tempfile.TemporaryDirectory(prefix="acm-bench-fleet-") as directory:
        try:
            for number, share in enumerate(shares):
                own = {name: enrolments[name] for name in share} if enrolments else {}
                setting = {"broker": broker, "names": share, "enrolments": own, "status_pause_s": status_pause_s}
                path = Path(directory) / f"{number}.json"
                path.write_text(json.dumps(setting))
                running.append(_Process(path))
            for process in running:
                process.next("ready", monotonic() + 60)
            yield FleetProcesses(names, running, [len(share) for share in shares])
        finally:
            for process in running:
                process.end()
