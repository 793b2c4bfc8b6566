"""The two forms of a log line, each where it belongs."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from broker.system.log_lines import console_line
from broker.system.logging import configure_logs
from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[4]
LOGGING = """
import structlog
from broker.system.logging import configure_logs
configure_logs("info")
log = structlog.get_logger("test")
log.info("agent_started", agent="web-01", reason="two words", level_of="a")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("handler_failed")
"""


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[list[dict[str, object]]]:
    """What the test logs, read as JSON, once it is asked for."""
    configure_logs("info")

    class Lines(list[dict[str, object]]):
        def __iter__(self) -> Iterator[dict[str, object]]:
            return map(json.loads, capsys.readouterr().err.splitlines())

    return Lines()


def test_line_for_programs_is_a_json_object_with_the_time_in_utc(logged: list[dict[str, object]]) -> None:
    structlog.get_logger("test").warning("café", agent="web-01", attempts=3, ok=True, code=None, seen={"a": 1})
    (line,) = logged
    assert list(line) == ["timestamp", "level", "event", "agent", "attempts", "ok", "code", "seen"]
    assert (line["level"], line["event"], line["attempts"], line["ok"], line["code"]) == (
        "warning",
        "café",
        3,
        True,
        None,
    )
    assert datetime.fromisoformat(str(line["timestamp"])).tzinfo == UTC


def test_exception_is_in_its_json_object(logged: list[dict[str, object]]) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        structlog.get_logger("test").exception("handler_failed")
    (line,) = logged
    assert str(line["exception"]).endswith("ValueError: two\nlines")


def test_line_on_a_terminal_is_text_with_the_exception_under_it(tmp_path: Path) -> None:
    terminal = Terminal([sys.executable, "-c", LOGGING], tmp_path, {"PYTHONPATH": str(ROOT)})
    assert terminal.wait() == 0
    started, failed, *traceback = terminal.shown.splitlines()
    assert started.endswith('Z info     agent_started agent=web-01 reason="two words" level_of=a')
    assert failed.endswith("Z error    handler_failed")
    assert traceback[0] == "    Traceback (most recent call last):"
    assert traceback[-1] == "    ZeroDivisionError: division by zero"


def test_no_text_of_others_begins_a_line_on_a_terminal() -> None:
    evil = "x\n2026-01-01T00:00:00Z info forged"
    line = console_line(
        None, "error", {"timestamp": "now", "level": "error", "event": evil, "exception": evil, "a": evil}
    )
    assert [it.startswith(" ") for it in line.splitlines()] == [False, True, True]
