"""The lines of commands: cheap, together, and as harmless as all others."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from broker.system.command_log import CommandLine, CommandLog, command_line
from broker.system.logging import configure_logs

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def line(event: str, *facts: Any) -> CommandLine:
    return command_line(CommandLog(lambda: NOW).moment(), event, *facts)


def test_lines_have_the_form_of_all_others(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    log = CommandLog(lambda: NOW)
    log.add(line("command_sent", "web-01", "id-1", "restart-agent"))
    log.add(line("command_completed", "web-01", "id-1", "restart-agent", "error", "failed", 1.5, 2.25))
    assert capsys.readouterr().err == ""
    log.flush()
    sent, completed = map(json.loads, capsys.readouterr().err.splitlines())
    about = {"agent": "web-01", "command_id": "id-1", "type": "restart-agent"}
    time = {"timestamp": "2026-01-01T12:00:00.000000Z", "level": "info"}
    assert sent == {**time, "event": "command_sent", **about}
    ended = {"outcome": "error", "code": "failed", "duration_s": 1.5, "total_s": 2.25}
    assert completed == {**time, "event": "command_completed", **about, **ended}


def test_lines_of_commands_are_not_limited(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    log = CommandLog(lambda: NOW)
    for number in range(2000):
        log.add(line("command_sent", "web-01", str(number), "restart-agent"))
    log.flush()
    assert len(capsys.readouterr().err.splitlines()) == 2000


def test_no_line_is_written_above_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning")
    log = CommandLog(lambda: NOW)
    log.add(line("command_sent", "web-01", "id-1", "restart-agent"))
    log.flush()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("command_type", "type_shown"), [("caf\u00e9\u202e", "caf\u00e9\ufffd"), ("a\x7fb", "a\ufffdb"), ("a\nb", "a\nb")]
)
def test_ids_and_types_of_others_are_one_harmless_line(
    capsys: pytest.CaptureFixture[str], command_type: str, type_shown: str
) -> None:
    configure_logs("info")
    log = CommandLog(lambda: NOW)
    log.add(line("command_accepted", "web-01", "a\x1b[2J\nb", command_type))
    log.flush()
    (written,) = capsys.readouterr().err.splitlines()
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written)["type"] == type_shown


def test_program_with_logs_of_its_own_gets_one_event() -> None:
    log = CommandLog(lambda: NOW)
    log.add(line("command_accepted", "web-01", "id-1", "restart-agent"))
    with capture_logs() as events:
        log.flush()
    ((event, (first,)),) = [(it["event"], it["lines"]) for it in events]
    assert (event, first.event, first.command_id) == ("command_lines", "command_accepted", "id-1")


def test_other_events_pass(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    structlog.get_logger("test").info("other_event", lines=[1])
    assert json.loads(capsys.readouterr().err)["lines"] == "[1]"
