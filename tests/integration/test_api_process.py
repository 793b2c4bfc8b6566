"""`acm api` as a process: its tokens, its end, and kill -9."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from broker.app.factories import open_ledger
from broker.contract.messages import Status
from tests.support.recorded import record_status

SEND = {"type": "restart-agent", "agents": ["web-01"]}


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url) as opened:
        record_status(opened, Status("web-01", True, "1", "i", "b", "g"))
    return url


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def acm(ledger: str, *words: str) -> str:
    command = [sys.executable, "-m", "broker", *words, "--ledger", ledger]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def running(ledger: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run `acm api` until the end of the block, where it is ended by TERM if it still runs."""
    command = [sys.executable, "-m", "broker", "api", "--listen", f"127.0.0.1:{port}", "--ledger", ledger]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any('"event":"api_started"' in line for line in process.stderr)
            yield process
        finally:
            process.terminate()
            process.stderr.read()


def test_request_is_done_once_over_kill_9(ledger: str, port: int) -> None:
    token = acm(ledger, "api", "token", "create", "alice", "--role", "operator")
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
    url = f"http://127.0.0.1:{port}/v1/commands"
    with running(ledger, port) as api:
        first = httpx.post(url, json=SEND, headers=headers, trust_env=False)
        os.kill(api.pid, signal.SIGKILL)
    with running(ledger, port) as api:
        again = httpx.post(url, json=SEND, headers=headers, trust_env=False)
        api.terminate()
        assert api.wait(timeout=30) == 0
    assert (first.status_code, again.content) == (201, first.content)
    (command,) = json.loads(acm(ledger, "commands", "--json"))
    assert command["command"]["origin"] == {"name": "alice", "module": "api"}


def test_tokens_are_listed_and_revoked(ledger: str, port: int) -> None:
    made = json.loads(
        acm(ledger, "api", "token", "create", "bob", "--role", "viewer", "--group", "edge", "--ttl", "1h", "--json")
    )
    headers = {"Authorization": f"Bearer {made['token']}"}
    url = f"http://127.0.0.1:{port}/v1/me"
    with running(ledger, port):
        assert httpx.get(url, headers=headers, trust_env=False).json()["groups"] == ["edge"]
        (listed,) = json.loads(acm(ledger, "api", "token", "list", "--json"))
        assert listed.pop("used_at") is not None
        assert listed.items() <= made.items()
        assert "bob" in acm(ledger, "api", "token", "list")
        acm(ledger, "api", "token", "revoke", made["id"])
        assert httpx.get(url, headers=headers, trust_env=False).json()["code"] == "credential_revoked"
