"""A program with a server inside: it sends one command and prints its result.

Run it from the project's directory: `python -m examples.embedded_server mqtt://… sqlite:///ledger.db web-01 TYPE`.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from broker import CommandRequest, Origin, ServerProcess, load_config

__all__ = ["main"]


def result_of(server: ServerProcess, agent: str, command_type: str, timeout_s: float) -> dict[str, Any] | None:
    """Send a command without parameters; return its result, None if there is none after `timeout_s` seconds."""
    request = CommandRequest(command_type, {}, Origin("embedded-server", "example"), expires_in_s=timeout_s)
    command = server.ledger.add_command(agent, request)
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        result = server.ledger.get(command.id).result
        if result is not None:
            return result
        time.sleep(0.2)
    return None


def main() -> None:
    """Run with the arguments `BROKER-URL LEDGER-URL AGENT TYPE`."""
    broker, ledger, agent, command_type = sys.argv[1:]
    server = ServerProcess(load_config(None, {"broker": broker, "ledger": ledger, "client_id": "embedded-server"}))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="server") as threads:
        running = threads.submit(server.run)
        try:
            result = result_of(server, agent, command_type, timeout_s=60)
        finally:
            server.stop()
        running.result()
    print("no result" if result is None else f"{result['outcome']}: {result['message']}")


if __name__ == "__main__":
    main()
