"""Text from an agent, a file or a message neither controls the reader's terminal nor is read as markup."""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from typer.testing import CliRunner

from broker.app.factories import open_database
from broker.cli.audit import AuditDiffers
from broker.cli.main import app, main
from broker.console.output import print_text
from broker.contract.messages import Feedback, Origin, Output, PendingReversal, Status
from broker.contract.states import ErrorCode, FeedbackKind, Outcome
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.refused_messages import UnstoredMessage
from broker.system.logging import configure_logs
from consumer.cli import main as agent_cli
from consumer.store.opening import open_store
from tests.support.audited import answering_audits
from tests.support.cli import commands_of
from tests.support.journals import chained
from tests.support.makers import command
from tests.support.recorded import record_feedback, record_status

MARKUP = "[bold red]MARK"
LINK = "[link=evil.example]LINK"
CONTROLS = "\x1b]0;title\x07\x1b[31m\x9b5m\r\x08\x7f"
UNSEEN = "\u202etxt.exe\u2066\u200b\u200d\ufeff\u2028\u2029\xad\U000e0041"
EVIL = f"{CONTROLS}{MARKUP}{LINK}:skull:{UNSEEN}"
SHOW_AGENT_TEXT = {
    "agents": ["agents"],
    "agents show": ["agents", "show", "web-01"],
    "audit accept": ["audit", "accept", "web-01"],
    "audit verify": ["audit", "verify", "web-01"],
    "active-responses": ["active-responses"],
    "blob list": ["blob", "list"],
    "ca list": ["ca", "list"],
    "enrolment list": ["enrolment", "list"],
    "cancel": ["cancel", "{open}"],
    "commands": ["commands"],
    "events": ["events"],
    "explain": ["explain", "{open}"],
    "group list": ["group", "list"],
    "group show": ["group", "show", "edge"],
    "ledger damaged": ["ledger", "damaged"],
    "ledger refused": ["ledger", "refused"],
    "operation list": ["operation", "list"],
    "operation show": ["operation", "show", "{operation}"],
    "show": ["show", "{command}"],
    "token list": ["token", "list"],
    "unmatched": ["unmatched"],
}
# These print arguments and results of their own, and no text from an agent (`up` that of logs: test_supervisor.py).
SHOW_NO_AGENT_TEXT = """
up|down|api|api certificate create|api certificate list|api certificate revoke|
api token create|api token list|api token revoke|
broker config|broker run|server|send|types|ca init|ca server-certificate|ca client-certificate|ca revoke|
enrolment revoke|ca crl|keys init|keys list|keys rotate|keys revoke|token create|token revoke|enroll-server|
blob put|blob rm|group add|group remove|group configure|operation cancel|ledger restored|ledger backup|ledger check|
ledger restore|package build|package manifest|
package verify|prune|doctor|agents forget|completion|retry|ca rollover begin|ca rollover status|
ca rollover finish|context add|context use|context list|context show|context remove
"""


def harmful(text: str) -> set[str]:
    bad = {character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    return bad - {"\n", "\t"}


def assert_harmless(shown: str) -> None:
    assert not harmful(shown), sorted(map(ascii, harmful(shown)))
    assert "MARK" not in shown.replace(MARKUP, ""), "markup was read"
    assert "LINK" not in shown.replace(LINK, ""), "a link was read"
    assert "\N{SKULL}" not in shown


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ids(url: str, tmp_path: Path) -> dict[str, str]:
    """Fill a ledger with text from a hostile agent; the codec would refuse some of it."""
    now = datetime.now(UTC)
    ledger = Ledger(open_database(url), now=lambda: now)
    reversal = PendingReversal(EVIL, (EVIL, EVIL), EVIL, "waiting", now)
    status = Status(
        "web-01", True, EVIL, EVIL, EVIL, EVIL, running_command=EVIL, last_error=EVIL, groups=(EVIL, "edge")
    )
    told = {"service": {EVIL: EVIL}, "supported_types": (EVIL,), "pending_reversals": (reversal,)}
    record_status(ledger, Status(**{**vars(status), **told, "pending_reversal_count": 1}))
    operation = ledger.add_operation(
        ["web-01", "web-02"], EVIL, CommandRequest(MARKUP, {EVIL: EVIL}, Origin(EVIL, EVIL))
    )
    sent = [row.command for row in ledger.commands("web-01")]
    said = Feedback(
        FeedbackKind.RESULT,
        "web-01",
        EVIL,
        EVIL,
        EVIL,
        EVIL,
        command_id=sent[0].id,
        command={EVIL: EVIL},
        outcome=Outcome.ERROR,
        code=ErrorCode.FAILED,
        data={EVIL: [EVIL]},
        output=Output(EVIL, EVIL),
        digest="d",
        notes=(EVIL,),
    )
    record_feedback(ledger, "web-01", [said, replace(said, command_id=EVIL)])
    file = tmp_path / EVIL
    file.write_text("x")
    ledger.blobs.put(file)
    ledger.keep_refused(UnstoredMessage("web-01", EVIL, EVIL, EVIL, EVIL, None))
    waiting = ledger.add_command("web-01", CommandRequest(MARKUP, {}, Origin(EVIL, EVIL)))
    ledger.claim_due(9)  # a cancel of what was never sent completes it
    ledger.database.close()
    return {"command": sent[0].id, "operation": operation.id, "open": waiting.id}


@pytest.fixture
def run(url: str) -> Callable[..., str]:
    def call(words: list[str], tool: typer.Typer = app) -> str:
        done = CliRunner().invoke(tool, words, env={"ACM_LEDGER": url, "COLUMNS": "2000"})
        assert done.exit_code == 0 or isinstance(done.exception, AuditDiffers), done.exception
        return done.output

    return call


@pytest.fixture
def answering(url: str, ids: dict[str, str]) -> Iterator[None]:
    """Let web-01 answer each get-audit-journal with a hostile journal."""
    entry = {"number": 1, "at": "2026-01-01T00:00:00Z", "opened": {"store_generation": EVIL, "message": EVIL}}
    evil = {"id": EVIL, "type": EVIL, "sha256": "0" * 64}
    journal = chained([{**entry, "accepted": [evil], "begun": [EVIL], "deleted": [EVIL]}])
    with answering_audits(url, "web-01", lambda _: journal):
        yield


def test_every_command_of_acm_is_covered_here() -> None:
    others = {words.strip() for words in SHOW_NO_AGENT_TEXT.split("|")}
    assert {words for words, _ in commands_of(app)} == SHOW_AGENT_TEXT.keys() | others


@pytest.mark.parametrize("name", SHOW_AGENT_TEXT)
@pytest.mark.usefixtures("answering")
def test_text_from_an_agent_neither_controls_the_terminal_nor_is_markup(
    name: str, run: Callable[..., str], ids: dict[str, str]
) -> None:
    words = [word.format(**ids) for word in SHOW_AGENT_TEXT[name]]
    shown = run(words)
    assert_harmless(shown)
    if name in ("agents", "active-responses", "audit accept", "audit verify", "show", "operation show"):
        assert MARKUP in shown, "it says what the agent said"
    assert run([*words, "--json"]).isascii()


LISTS = """
agents|active-responses|blob list|ca list|commands|enrolment list|group list|ledger damaged|ledger refused|
operation list|operation show|token list|unmatched
"""


@pytest.mark.parametrize("name", [words.strip() for words in LISTS.split("|")])
@pytest.mark.parametrize("form", ["table", "wide", "plain", "name", "yaml"])
def test_no_format_of_a_list_lets_text_control_the_terminal(
    name: str, form: str, run: Callable[..., str], ids: dict[str, str]
) -> None:
    assert_harmless(run([*(word.format(**ids) for word in SHOW_AGENT_TEXT[name]), "-o", form]))


def test_last_error_of_an_open_commands_agent_is_shown_literally(run: Callable[..., str], ids: dict[str, str]) -> None:
    words = ["show", ids["open"]]
    shown = run(words)
    assert_harmless(shown)
    assert "last error of web-01: " in shown
    assert (run([*words, "--json"]).isascii(), json.loads(run([*words, "--json"]))["agent_last_error"]) == (True, EVIL)


def test_text_from_others_in_an_error_is_harmless(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACM_LEDGER", url)
    monkeypatch.setattr(sys, "argv", ["acm", "blob", "put", f"/nowhere/{EVIL}"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().err
    assert shown.startswith("acm: ")
    assert_harmless(shown)


def test_log_event_is_one_line_of_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    log = structlog.get_logger("acm.test")
    log.warning("feedback_refused", reason=f"{EVIL}\nlevel=info event=forged", refused=[EVIL], agent="web-01")
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.exception("handler_failed")
    shown = capsys.readouterr().err
    assert_harmless(shown)
    assert len(shown.splitlines()) == 2


def test_lists_of_acm_agent_are_harmless(tmp_path: Path, run: Callable[..., str]) -> None:
    store = open_store(tmp_path / "state", now=lambda: datetime.now(UTC))
    store.store_command(command(EVIL, command_type=EVIL), datetime.now(UTC))
    store.close()
    shown = run(["queue", "--state", str(tmp_path / "state")], agent_cli.app)
    assert MARKUP in shown
    assert_harmless(shown)
    assert json.loads(run(["queue", "--state", str(tmp_path / "state"), "--json"], agent_cli.app))[0]["type"] == EVIL


def test_print_text_keeps_plain_text(capsys: pytest.CaptureFixture[Any]) -> None:
    print_text(EVIL)
    assert_harmless(capsys.readouterr().out)
