"""What the commands of acm-agent load: each starts a fresh interpreter, since this one has loaded everything."""

import subprocess
import sys
from pathlib import Path

import pytest

from consumer.store.opening import open_store
from tests.support.enrolled import Registrar
from tests.support.makers import NOW, command

HEAVY = (
    "cryptography",
    "diskcache",
    "httpx",
    "opentelemetry",
    "paho",
    "pydantic",
    "rich",
    "sqlalchemy",
    "structlog",
    "yaml",
)
SCRIPT = f"""
import sys
from consumer.cli.main import app
try:
    app(sys.argv[1:])
finally:
    print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
"""


def loaded_by(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("enroll", "--help")], ids=" ".join)
def test_help_loads_no_heavy_library(arguments: tuple[str, ...]) -> None:
    assert loaded_by(*arguments) == {"rich"}


def test_status_loads_no_heavy_library(tmp_path: Path) -> None:
    store = open_store(tmp_path, now=lambda: NOW)
    store.store_command(command("a"), NOW)
    store.close()
    Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db").enroll("web-01", tmp_path, "mqtt://127.0.0.1:1")
    assert loaded_by("status", "--state", str(tmp_path)) == {"rich", "structlog"}


def test_queue_and_audit_load_no_heavy_library(tmp_path: Path) -> None:
    store = open_store(tmp_path, now=lambda: NOW)
    store.store_command(command("a"), NOW)
    store.close()
    assert loaded_by("queue", "--state", str(tmp_path)) == {"rich", "structlog"}
    assert loaded_by("audit", "--state", str(tmp_path)) == {"rich", "structlog"}


def test_running_agent_has_only_the_libraries_that_it_always_needs(tmp_path: Path) -> None:
    options = ["--agent", "a", "--broker", "mqtt://127.0.0.1:1", "--state", str(tmp_path), "--accept-unsigned"]
    words = [sys.executable, "-c", SCRIPT, "run", *options]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any('"event":"agent_started"' in line for line in running.stderr)
        running.terminate()
        *_, loaded = running.stderr
    assert set(loaded.split()) == {"diskcache", "paho", "structlog"}
