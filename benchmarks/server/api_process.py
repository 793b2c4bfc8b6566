"""An `acm api` on the ledger of a row, and logging in to its page."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from benchmarks.server.site import wait_until
from broker.access.access_tokens import AccessTokenStore
from broker.fleet.models import Principal, Role
from broker.ledger.ledger import Ledger

__all__ = ["api_process", "log_in"]


@contextmanager
def api_process(url: str, port: int, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Serve the API on the ledger at `url`, at a port of 127.0.0.1; it listens at the start of the block."""
    argv = [str(Path(sys.executable).with_name("acm")), "api", "--listen", f"127.0.0.1:{port}", "--ledger", url]
    with log.open("ab") as output, subprocess.Popen(argv, stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: _answers(port), "the API to listen")
            yield process
        finally:
            process.terminate()


def log_in(browser: httpx.Client, ledger: Ledger, role: Role) -> None:
    """Log in to the page with a new access token; the client keeps the cookie."""
    tokens = AccessTokenStore(ledger.database, now=lambda: datetime.now(UTC))
    _, token = tokens.add(Principal("bench", role), timedelta(days=1), "bench")
    origin = {"Origin": str(browser.base_url).rstrip("/")}
    browser.post("/login", data={"token": token, "next": "/"}, headers=origin, follow_redirects=True).raise_for_status()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
