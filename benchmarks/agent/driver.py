"""Plays the server for one program under measurement: publishes commands, receives results and acks them."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.agent.enrolled import Sign, enroll, unsigned
from benchmarks.agent.subjects import AGENT
from benchmarks.measuring.processes import cpu_s
from benchmarks.measuring.raw_mqtt import RawClient
from broker.contract.topics import Channel
from broker.mosquitto.process import EmbeddedMosquitto
from broker.mqtt.connection import MqttConnection

__all__ = ["Driver", "Run", "Subject", "command", "command_name", "driven", "open_session", "running", "saturated"]

TIMEOUT_S = 240.0
ACKS_IN_FRAME = 400  # an agent refuses a frame of acks of more than 64 KiB
_COMMAND = f"acm/{AGENT}/command"


def command_name(number: int) -> str:
    """Return the id of a command."""
    return f"0190f5b2-7b7a-7cc3-98c4-{number:012d}"


def command(number: int) -> bytes:
    """Return a command that does nothing."""
    return json.dumps(
        {
            "id": command_name(number),
            "type": "no-op",
            "parameters": {},
            "origin": {"name": "bench", "module": "benchmarks"},
            "created_at": "2026-01-01T00:00:00Z",
            "sequence": {"epoch": 1, "number": number},
        }
    ).encode()


class Driver:
    """The server's side. With `acks` false it keeps its acks. `arrived`: when the first result of each came."""

    def __init__(self, broker: EmbeddedMosquitto, sign: Sign = unsigned) -> None:
        topics = [f"acm/{AGENT}/feedback"]
        self.connection = MqttConnection(
            broker.url, "bench", clean_start=True, session_expiry_s=0, subscriptions=topics
        )
        self.arrived: dict[str, float] = {}
        self.results: Counter[str] = Counter()
        self.accepted = 0
        self.empty = False
        self.acks = True
        self._port = broker.port
        self._sign = sign

    def publish(self, number: int) -> None:
        """Publish one command."""
        assert self.connection.publish(_COMMAND, self._sign(Channel.COMMAND, command(number)))

    def fill(self, count: int, per_frame: int = 1, first: int = 1) -> None:
        """Queue the commands at the broker, and wait until it has all of them."""
        feeder = RawClient(self._port, "feeder")
        feeder.publish(_COMMAND, self._frames(first, first + count, per_frame))
        feeder.close()

    def _frames(self, first: int, end: int, per_frame: int) -> Iterator[bytes]:
        for number in range(first, end, per_frame):
            commands = [command(it) for it in range(number, min(number + per_frame, end))]
            frame = commands[0] if len(commands) == 1 else b"[" + b",".join(commands) + b"]"
            yield self._sign(Channel.COMMAND, frame)

    def listen(self, until_empty: bool = True, count: int = 0, timeout_s: float = TIMEOUT_S) -> None:
        """Receive until the program says that it is empty, or until so many results have arrived."""
        end = monotonic() + timeout_s
        while not (self.empty if until_empty else len(self.arrived) >= count):
            if monotonic() > end:
                raise TimeoutError(f"Only {len(self.arrived)} results arrived in time.")
            self.receive()

    def receive(self, timeout_s: float = 0.2) -> None:
        """Receive what arrives within a while, and ack the results in it."""
        acks = []
        for delivery in self._drain(timeout_s):
            content = json.loads(delivery.payload or b"{}")
            for item in content if isinstance(content, list) else [content]:
                if item.get("kind") == "result":
                    self.arrived.setdefault(item["command_id"], monotonic())
                    self.results[item["command_id"]] += 1
                    acks.append({"command_id": item["command_id"], "digest": item["digest"]})
                self.accepted += item.get("kind") == "accepted"
                self.empty |= item.get("kind") == "empty"
        for first in range(0, len(acks) if self.acks else 0, ACKS_IN_FRAME):
            frame = json.dumps(acks[first : first + ACKS_IN_FRAME]).encode()
            self.connection.publish(f"acm/{AGENT}/ack", self._sign(Channel.ACK, frame))

    def _drain(self, timeout_s: float) -> list[Any]:
        deliveries = self.connection.drain(timeout_s)
        self.connection.acknowledge(deliveries)
        return deliveries


class Subject:
    """A program under measurement, which has been prepared and starts at `go`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def go(self) -> None:
        """Let it start."""
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@contextmanager
def running(name: str, url: str, state: Path, count: int, prefix: tuple[str, ...] = ()) -> Iterator[Subject]:
    """Run a program of `benchmarks.agent.subjects`, until the end of the block at most."""
    argv = [*prefix, sys.executable, "-m", "benchmarks.agent.subjects", name, url, str(state), str(count)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        subject = Subject(process)
        assert subject.line() == "ready"
        yield subject
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def open_session(broker: EmbeddedMosquitto) -> None:
    """Let the broker keep what is sent to the agent from now on."""
    channels = [f"acm/{AGENT}/{channel}" for channel in ("command", "control", "ack")]
    with MqttConnection(broker.url, AGENT, subscriptions=channels) as session:
        assert session.wait_connected(10)


@contextmanager
def driven(name: str, count: int, prefix: tuple[str, ...] = ()) -> Iterator[tuple[Driver, Subject]]:
    """Run a program with a broker, in which it has a session, and a driver."""
    with EmbeddedMosquitto() as broker, tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        state = Path(directory) / "state"
        open_session(broker)
        sign = enroll(AGENT, state, broker.url) if name == "ours_signed" else unsigned
        driver = Driver(broker, sign)
        with driver.connection:
            assert driver.connection.wait_connected(10)
            with running(name, broker.url, state, count, prefix) as subject:
                yield driver, subject


@dataclass(frozen=True)
class Run:
    """Commands per second, and processor time of the program."""

    per_s: float
    cpu_us: float


def saturated(name: str, count: int, per_frame: int = 1) -> Run:
    """Measure from the program's start to its empty store, with all commands queued before."""
    with driven(name, count) as (driver, subject):
        driver.fill(count, per_frame)
        began, spent = monotonic(), cpu_s(subject.pid)
        subject.go()
        driver.listen()
        return Run(count / (monotonic() - began), (cpu_s(subject.pid) - spent) / count * 1e6)
