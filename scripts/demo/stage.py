"""What the steps of the demonstration share: the programs, a listener on the wire, and how a command is shown."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from broker.mqtt import MqttConnection

AGENT = "web-01"
ARROWS = {
    "command": "server ──▶ agent ",
    "control": "server ──▶ agent ",
    "ack": "server ──▶ agent ",
    "feedback": "server ◀── agent ",
    "status": "server ◀── agent ",
}
console = Console(width=118, highlight=False)


class Hops:
    """Listens to everything on the wire and keeps it, to be shown."""

    def __init__(self, url: str) -> None:
        self.seen: list[tuple[float, str, dict[str, Any]]] = []
        self._connection = MqttConnection(
            url, client_id="demo-listener", clean_start=True, session_expiry_s=0, subscriptions=[f"acm/{AGENT}/#"]
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        while not self._ended.is_set():
            arrived = self._connection.drain(0.2)
            for delivery in arrived:
                if delivery.payload:
                    frame = json.loads(delivery.payload)
                    channel = delivery.topic.rpartition("/")[2]
                    rows = frame if isinstance(frame, list) else [frame]
                    self.seen += [(time.monotonic(), channel, row) for row in rows]
            self._connection.acknowledge(arrived)

    def __enter__(self) -> "Hops":
        self._connection.start()
        self._connection.wait_connected(10)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.stop()

    def of(self, command_id: str) -> list[tuple[float, str, dict[str, Any]]]:
        return [row for row in self.seen if command_id in (row[2].get("id"), row[2].get("command_id"))]


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 40.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"The demonstration failed: waited {timeout_s:g} s in vain for {what}.")
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def program(argv: list[str], log: Path, executable: str = sys.executable) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our programs; it is told to end when the block ends."""
    with log.open("ab") as output:
        process = subprocess.Popen([executable, *argv], stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def tool(*arguments: str) -> Any:
    done = subprocess.run([sys.executable, "-m", *arguments, "--json"], capture_output=True, text=True, timeout=60)
    if not done.stdout.strip():
        raise SystemExit(f"The demonstration failed: {' '.join(arguments)}: {done.stderr}")
    return json.loads(done.stdout)


def run_tool(module: str, *arguments: str) -> int:
    """Run acm or acm-agent as a person does, shown with its command line; return its exit code."""
    name = {"broker": "acm", "consumer": "acm-agent"}[module]
    console.print(f"[dim]$[/dim] {name} {' '.join(arguments)}", highlight=False)
    environment = {**os.environ, "COLUMNS": str(console.width)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    console.out(done.stdout.rstrip())
    if done.returncode:
        console.out(done.stderr.strip().splitlines()[-1])
    return done.returncode


def show_hops(hops: Hops, command_id: str) -> None:
    rows = hops.of(command_id)
    table = Table("ms", "way", "topic", "what", box=None, padding=(0, 2), header_style="dim")
    for moment, channel, row in rows:
        what = row.get("message") or row.get("type") or f"digest {row.get('digest', '')[:12]}…"
        if row.get("kind"):
            what = f"[bold]{row['kind']}[/bold]  {what}"
        table.add_row(f"{(moment - rows[0][0]) * 1000:6.1f}", ARROWS[channel], channel, what)
    console.print(table)


class Stage:
    """Where the steps play: one agent, everything in one temporary directory."""

    def __init__(self, directory: Path, hops: Hops) -> None:
        self.directory = directory
        self.state = directory / "agent"
        self.hops = hops

    def queue(self) -> list[dict[str, Any]]:
        return tool("consumer", "queue", "--state", str(self.state))

    def online(self) -> dict[str, Any]:
        rows = wait_for(
            lambda: [row for row in tool("broker", "agents") if row["agent"] == AGENT and row["online"]],
            "the agent to be online",
        )
        return rows[0]

    def send(self, title: str, command_type: str, *arguments: str) -> None:
        console.rule(f"[bold]{title}[/bold]", align="left")
        console.print(f"[dim]$[/dim] acm send {AGENT} {' '.join((command_type, *arguments))} --wait\n")
        shown = tool("broker", "send", AGENT, command_type, *arguments, "--wait", "40")
        self.show_result(shown["result"])

    def show_result(self, result: dict[str, Any]) -> None:
        wait_for(lambda: not self.queue(), "the deletion after the ack")
        show_hops(self.hops, result["command_id"])
        good = result["outcome"] == "success"
        lines = f"{result['outcome']}{'' if good else ' (' + result['code'] + ')'}: {result['message']}"
        if result.get("data"):
            lines += "\n[dim]" + json.dumps(result["data"])[:300] + "[/dim]"
        console.print(Panel(lines, title="result in the ledger", border_style="green" if good else "yellow"))
        console.print("The agent's queue is [bold]empty[/bold]: deleted after the ack.\n")

    def wait_and_show(self, command_id: str) -> None:
        row = wait_for(
            lambda: (found := tool("broker", "show", command_id))["state"] == "completed" and found, "the result"
        )
        self.show_result(row["result"])
