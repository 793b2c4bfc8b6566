"""Running the programs as processes, and the console of the demonstration."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

console = Console(width=118, highlight=False)


def failed(why: str) -> SystemExit:
    """Return the exception that ends the demonstration with a reason."""
    return SystemExit(f"The demonstration failed: {why}")


def expect(condition: bool, what: str) -> None:
    """End the demonstration unless the condition holds."""
    if not condition:
        raise failed(f"expected that {what}.")


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 40.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise failed(f"timed out after {timeout_s:g} s waiting for {what}.")
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def program(argv: list[str], log: Path, executable: str = sys.executable) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of the programs until the block ends; it then gets TERM."""
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


def tool(*arguments: str, **environment: str) -> Any:
    argv, variables = [sys.executable, "-m", *arguments, "--json"], {**os.environ, **environment}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, env=variables)
    if not done.stdout.strip():
        raise failed(f"{' '.join(arguments)}: {done.stderr}")
    return json.loads(done.stdout)


def sent(agent: str, command_type: str, *arguments: str) -> Any:
    """Run acm send for one agent, and return the command that it shows."""
    (command,) = tool("broker", "send", agent, command_type, *arguments)["commands"]
    return command


def run_tool(module: str, *arguments: str) -> None:
    """Run acm or acm-agent and show its command line and output; it must succeed."""
    name = {"broker": "acm", "consumer": "acm-agent"}[module]
    console.print(f"[dim]$[/dim] {name} {' '.join(arguments)}", highlight=False)
    environment = {**os.environ, "COLUMNS": str(console.width)}
    argv = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=environment)
    console.out(done.stdout.rstrip())
    if done.returncode:
        raise failed(f"{name} {' '.join(arguments)}: {done.stderr.strip()}")
