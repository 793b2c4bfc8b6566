"""`make bench`: the cost of durability, as ratios to simpler consumers in the same run, as a table and as JSON."""

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from benchmarks.enrolled import Sign, enroll, unsigned
from benchmarks.store_start import start_ratio
from benchmarks.subjects import AGENT
from broker.contract.topics import Channel
from broker.mosquitto.process import EmbeddedMosquitto
from broker.mqtt.connection import MqttConnection

ROUNDS = 5
SATURATED = 3000
COUNTED = 1000
PACED, PER_SECOND = 200, 20
TIMEOUT_S = 120.0
OUTPUT = Path("build/bench.json")
THROUGHPUT_SUBJECTS = ("ours", "ours_signed", "naive", "naive_durable", "pass_through")
LATENCY_SUBJECTS = ("ours", "echo")


def command(number: int) -> bytes:
    return json.dumps(
        {
            "id": f"0190f5b2-7b7a-7cc3-98c4-{number:012d}",
            "type": "no-op",
            "parameters": {},
            "origin": {"name": "bench", "module": "benchmarks"},
            "created_at": "2026-01-01T00:00:00Z",
            "sequence": {"epoch": 1, "number": number},
        }
    ).encode()


class Driver:
    """Publishes commands, receives results and acks them, like a server."""

    def __init__(self, url: str, sign: Sign = unsigned) -> None:
        topics = [f"acm/{AGENT}/feedback", "bench/marker"]
        self.connection = MqttConnection(url, "bench", clean_start=True, session_expiry_s=0, subscriptions=topics)
        self.arrived: dict[str, float] = {}
        self.empty = False
        self._sign = sign

    def publish(self, number: int) -> None:
        assert self.connection.publish(f"acm/{AGENT}/command", self._sign(Channel.COMMAND, command(number)))

    def fill(self, count: int) -> None:
        """Queue the commands at the broker, and wait until it has all of them."""
        for number in range(1, count + 1):
            self.publish(number)
        self.connection.publish("bench/marker", b"all")
        end = monotonic() + TIMEOUT_S
        while not any(d.topic == "bench/marker" for d in self._drain()):
            assert monotonic() < end, "the broker did not accept the commands"

    def listen(self, until_empty: bool = True, count: int = 0) -> None:
        end = monotonic() + TIMEOUT_S
        while not (self.empty if until_empty else len(self.arrived) >= count):
            assert monotonic() < end, f"only {len(self.arrived)} results arrived"
            self.receive()

    def receive(self, timeout_s: float = 0.2) -> None:
        acks = []
        for delivery in self._drain(timeout_s):
            content = json.loads(delivery.payload or b"{}")
            for item in content if isinstance(content, list) else [content]:
                if item.get("kind") == "result":
                    self.arrived.setdefault(item["command_id"], monotonic())
                    acks.append({"command_id": item["command_id"], "digest": item["digest"]})
                self.empty |= item.get("kind") == "empty"
        if acks:
            self.connection.publish(f"acm/{AGENT}/ack", self._sign(Channel.ACK, json.dumps(acks).encode()))

    def _drain(self, timeout_s: float = 0.2) -> list[Any]:
        deliveries = self.connection.drain(timeout_s)
        self.connection.acknowledge(deliveries)
        return deliveries


@contextmanager
def running(
    name: str, url: str, state: Path, count: int, prefix: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    argv = [*prefix, sys.executable, "-m", "benchmarks.subjects", name, url, str(state), str(count)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


@contextmanager
def driven(name: str, count: int, prefix: tuple[str, ...] = ()) -> Iterator[tuple[Driver, subprocess.Popen[str]]]:
    with EmbeddedMosquitto() as broker, tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        state = Path(directory) / "state"
        channels = [f"acm/{AGENT}/{channel}" for channel in ("command", "control", "ack")]
        with MqttConnection(broker.url, AGENT, subscriptions=channels) as session:
            assert session.wait_connected(10)
        sign = enroll(AGENT, state, broker.url) if name == "ours_signed" else unsigned
        driver = Driver(broker.url, sign)
        with driver.connection:
            assert driver.connection.wait_connected(10)
            with running(name, broker.url, state, count, prefix) as process:
                yield driver, process


def throughput(name: str, count: int = SATURATED) -> float:
    """Return commands per second, from the subject's start to its empty store, with all of them queued before."""
    with driven(name, count) as (driver, process):
        driver.fill(count)
        begun = monotonic()
        go(process)
        driver.listen()
        return count / (monotonic() - begun)


def latency(name: str) -> float:
    """Return the median milliseconds from a command's publication to its result, at a steady pace."""
    with driven(name, PACED) as (driver, process):
        go(process)
        sent: dict[str, float] = {}
        warm, pause = 20, threading.Event()
        pause.wait(1.0)
        for number in range(1, PACED + 1):
            sent[f"0190f5b2-7b7a-7cc3-98c4-{number:012d}"] = monotonic()
            driver.publish(number)
            end = monotonic() + 1 / PER_SECOND
            while (left := end - monotonic()) > 0:
                driver.receive(left)
        driver.listen(until_empty=False, count=PACED)
        waits = [driver.arrived[name] - moment for name, moment in sent.items()]
        return statistics.median(waits[warm:]) * 1000


def fsyncs() -> int | None:
    """Return the number of fsyncs for 1,000 commands, counted by strace; None without strace."""
    if shutil.which("strace") is None:
        return None
    with tempfile.NamedTemporaryFile(prefix="acm-strace-") as trace:
        prefix = ("strace", "-D", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", trace.name)
        with driven("ours", COUNTED, prefix) as (driver, process):
            driver.fill(COUNTED)
            before = len(Path(trace.name).read_text().splitlines())
            go(process)
            driver.listen()
            return len(re.findall(r"f(?:data)?sync\(", "\n".join(Path(trace.name).read_text().splitlines()[before:])))


def rounds(console: Console) -> dict[str, dict[str, list[float]]]:
    measured: dict[str, dict[str, list[float]]] = {"throughput": {}, "latency_ms": {}}
    for number in range(1, ROUNDS + 1):
        for name in THROUGHPUT_SUBJECTS:
            measured["throughput"].setdefault(name, []).append(throughput(name))
        for name in LATENCY_SUBJECTS:
            measured["latency_ms"].setdefault(name, []).append(latency(name))
        console.print(f"round {number} of {ROUNDS}", style="dim")
    return measured


def ratio(measured: dict[str, list[float]], one: str, other: str) -> float:
    """Return the median of the rounds' ratios; the two of a round ran next to each other."""
    return statistics.median(a / b for a, b in zip(measured[one], measured[other], strict=True))


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    console = Console(width=110)
    measured = rounds(console)
    speed, waits = measured["throughput"], measured["latency_ms"]
    goals = [
        ("saturated, against naive", ratio(speed, "ours", "naive"), ">=", 4.0),
        ("saturated, against naive made durable", ratio(speed, "ours", "naive_durable"), ">=", 4.0),
        ("saturated, against pass-through", ratio(speed, "ours", "pass_through"), ">=", 0.25),
        (f"p50 at {PER_SECOND}/s, against a bare echo", ratio(waits, "ours", "echo"), "<=", 2.0),
    ]
    signed = ratio(speed, "ours_signed", "ours")
    count, start = fsyncs(), start_ratio()
    _print(console, measured, goals, signed, count)
    console.print(f"start of a store with 100,000 tombstones, against one with none: {start:.1f}")
    OUTPUT.parent.mkdir(exist_ok=True)
    ratios = {name: {"ratio": value, "goal": f"{sign} {goal:g}"} for name, value, sign, goal in goals}
    document = {
        "measured": measured,
        "ratios": ratios,
        "signed_to_unsigned": signed,
        "fsyncs_per_1000_commands": count,
        "start_with_tombstones": start,
    }
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    console.print(f"JSON: {OUTPUT}")


def _print(console: Console, measured: dict[str, Any], goals: list[Any], signed: float, count: int | None) -> None:
    table = Table("subject", "median", "min", "max", title=f"{ROUNDS} rounds, interleaved")
    for quantity, unit in (("throughput", "commands/s"), ("latency_ms", "ms p50")):
        for name, values in measured[quantity].items():
            figures = (statistics.median(values), min(values), max(values))
            table.add_row(f"{name}, {unit}", *(f"{figure:.1f}" for figure in figures))
    console.print(table)
    ratios = Table("ratio of ours", "measured", "goal", "met")
    for name, value, sign, goal in goals:
        met = value >= goal if sign == ">=" else value <= goal
        ratios.add_row(name, f"{value:.2f}", f"{sign} {goal:g}", "yes" if met else "NO")
    ratios.add_row("saturated, signed against unsigned", f"{signed:.2f}", "none", "")
    console.print(ratios)
    console.print(f"fsyncs per 1,000 commands: {'install strace to count them' if count is None else count}")


if __name__ == "__main__":
    main()
