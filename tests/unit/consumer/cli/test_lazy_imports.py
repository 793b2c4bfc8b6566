"""What the commands of acm-agent load: each starts a fresh interpreter, since this one has loaded everything."""

import subprocess
import sys
from pathlib import Path

import pytest

from consumer.store.opening import open_store
from tests.support.makers import NOW, command

HEAVY = ("paho", "cryptography", "diskcache", "httpx", "sqlalchemy")
SCRIPT = f"""
import sys
from consumer.cli.main import app
try:
    app(sys.argv[1:])
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def loaded_by(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("enroll", "--help")], ids=" ".join)
def test_help_loads_no_heavy_library(arguments: tuple[str, ...]) -> None:
    assert loaded_by(*arguments) == "[]"


def test_queue_and_audit_load_no_heavy_library(tmp_path: Path) -> None:
    store = open_store(tmp_path, now=lambda: NOW)
    store.store_command(command("a"), NOW)
    store.close()
    assert loaded_by("queue", "--state", str(tmp_path)) == "[]"
    assert loaded_by("audit", "--state", str(tmp_path)) == "[]"
