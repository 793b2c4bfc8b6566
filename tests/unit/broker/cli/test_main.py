"""The commands of acm: their list, and the libraries that their modules load."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from broker.app.factories import open_database
from broker.cli.main import app

_HEAVY = (
    "cryptography",
    "dataclasses_json",
    "diskcache",
    "httpx",
    "hypothesis",
    "paho",
    "pydantic",
    "sqlalchemy",
    "sqlalchemy.dialects.postgresql",
    "starlette",
    "structlog",
    "uvicorn",
    "yaml",
)
_OF_LEDGER = {"dataclasses_json", "sqlalchemy"}
_SCRIPT = f"""
import sys
from broker.cli.main import main
try:
    main()
except SystemExit:
    pass
print(*(name for name in {(*_HEAVY, "rich")!r} if name in sys.modules), file=sys.stderr)
"""


def loaded_by(*words: str, stdin: str = "") -> set[str]:
    """Return the heavy libraries, without rich, that are loaded after `acm WORDS` in a fresh interpreter."""
    argv = [sys.executable, "-c", _SCRIPT, *words]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60)
    return set(done.stderr.splitlines()[-1].split()) - {"rich"}


@pytest.mark.parametrize(
    ("words", "libraries"),
    [
        (["--help"], set()),
        (["down", "--directory", "/nonexistent"], set()),
        (["types"], {"dataclasses_json"}),
        (["show", "--help"], {"dataclasses_json"}),
        (["show", "x"], _OF_LEDGER),
        (["explain", "x"], _OF_LEDGER),
        (["commands"], _OF_LEDGER),
        (["agents"], _OF_LEDGER),
        (["send", "--all", "restart-agent"], {*_OF_LEDGER, "pydantic"}),
    ],
)
def test_command_loads_only_the_libraries_that_it_uses(
    words: list[str], libraries: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACM_LEDGER", f"sqlite:///{tmp_path}/ledger.db")
    open_database(f"sqlite:///{tmp_path}/ledger.db").close()
    assert loaded_by(*words) == libraries


@pytest.mark.parametrize(
    "words", [["show", "x"], ["explain", "x"], ["commands"], ["agents"], ["operation", "list"], ["group", "list"]]
)
def test_command_over_an_api_loads_no_database(words: list[str]) -> None:
    place = ["--server", "http://127.0.0.1:1", "--token-file", "/dev/stdin"]
    assert loaded_by(*words, *place, stdin="token") == {"dataclasses_json", "httpx"}


def test_running_server_has_only_the_libraries_that_it_always_needs(tmp_path: Path) -> None:
    options = ["--broker", "mqtt://127.0.0.1:1", "--ledger", f"sqlite:///{tmp_path}/ledger.db"]
    words = [sys.executable, "-c", _SCRIPT, "server", *options]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any('"event":"server_started"' in line for line in running.stderr)
        running.terminate()
        *_, loaded = running.stderr
    assert set(loaded.split()) == {*_OF_LEDGER, "cryptography", "paho", "structlog"}


def test_list_of_commands_has_the_first_sentence_of_each() -> None:
    group = typer.main.get_command(app)
    for name, listed in group.commands.items():  # type: ignore[attr-defined]
        full = group.load(name).help  # type: ignore[attr-defined]
        assert full.startswith(listed.help.rstrip(".")), name


@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        (["agents", "show", "web-01", "--json"], 6, "unknown_agent"),
        (["commands", "-o", "json", "--columns", "nothing"], 2, "unknown_column"),
        (["commands", "--output=json", "--nothing"], 2, "wrong_usage"),
        (["comands", "--json"], 2, "wrong_usage"),
        (["show", "", "--json"], 2, "empty_argument"),
        (["commands", "--json", "--ledger", "sqlite:////nowhere/ledger.db"], 3, "ledger_not_found"),
    ],
)
def test_error_is_json_on_stderr_with_json(words: list[str], exit_code: int, code: str, tmp_path: Path) -> None:
    open_database(f"sqlite:///{tmp_path}/ledger.db").close()
    environment = {**os.environ, "ACM_LEDGER": f"sqlite:///{tmp_path}/ledger.db"}
    argv = [sys.executable, "-m", "broker", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment)
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, done.stdout, error["exit_code"], error["code"]) == (exit_code, "", exit_code, code)
    assert error["message"]


def test_version_and_short_help() -> None:
    shown = CliRunner().invoke(app, ["--version"]).stdout
    assert shown == f"acm {version('agent-command-manager')}\n"
    for words in (["-h"], ["commands", "-h"], ["group", "list", "-h"]):
        assert "Usage" in CliRunner().invoke(app, words).stdout
