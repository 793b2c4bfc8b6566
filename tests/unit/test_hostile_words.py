"""Nothing that an agent, a file or a message says controls the terminal of who reads it, or is read as markup."""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from typer.testing import CliRunner

from broker.cli import app, main
from broker.cli_common import say
from broker.contract.messages import Feedback, Origin, Output, PendingReversal, Status
from broker.contract.plain_text import plain
from broker.contract.states import ErrorCode, FeedbackKind, Outcome
from broker.ledger import Ledger
from broker.process import configure_logs
from consumer import cli as agent_cli
from consumer.command_store import DiskCommandStore
from tests.makers import command

MARKUP = "[bold red]MARK"
LINK = "[link=evil.example]LINK"
CONTROLS = "\x1b]0;title\x07\x1b[31m\x9b5m\r\x08\x7f"
UNSEEN = "\u202etxt.exe\u2066\u200b\u200d\ufeff\u2028\u2029\xad\U000e0041"
EVIL = f"{CONTROLS}{MARKUP}{LINK}:skull:{UNSEEN}"
TOLD_BY_AGENTS = {
    "agents": ["agents"],
    "active-responses": ["active-responses"],
    "blob list": ["blob", "list"],
    "ca list": ["ca", "list"],
    "cancel": ["cancel", "{command}"],
    "commands": ["commands"],
    "group list": ["group", "list"],
    "group show": ["group", "show", "edge"],
    "operation list": ["operation", "list"],
    "operation show": ["operation", "show", "{operation}"],
    "show": ["show", "{command}"],
    "token list": ["token", "list"],
}
# These print what their user has just given them, or made with them, and nothing that an agent has said.
OWN_WORDS = """broker config|broker run|server|send|types|ca init|ca server-certificate|ca client-certificate|ca revoke|
ca crl|keys init|keys list|keys rotate|keys revoke|token create|token revoke|enroll-server|blob put|blob rm|group add|
group remove|group configure|operation cancel|package build|package manifest|package verify"""


def harmful(text: str) -> set[str]:
    bad = {character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    return bad - {"\n", "\t"}


def assert_harmless(shown: str) -> None:
    assert not harmful(shown), sorted(map(ascii, harmful(shown)))
    assert "MARK" not in shown.replace(MARKUP, ""), "markup was read"
    assert "LINK" not in shown.replace(LINK, ""), "a link was read"
    assert "\N{SKULL}" not in shown


def leaves(group: Any, words: str = "") -> Iterator[str]:
    for name, inner in group.commands.items():
        if hasattr(inner, "commands"):
            yield from leaves(inner, f"{words}{name} ")
        else:
            yield f"{words}{name}"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ids(url: str, tmp_path: Path) -> dict[str, str]:
    """Fill a ledger with what a hostile agent has said; the codec would have refused some of it."""
    now = datetime.now(UTC)
    ledger = Ledger(url, now=lambda: now)
    reversal = PendingReversal(EVIL, (EVIL, EVIL), EVIL, "waiting", now)
    status = Status(
        "web-01", True, EVIL, EVIL, EVIL, EVIL, running_command=EVIL, last_error=EVIL, groups=(EVIL, "edge")
    )
    told = {"service": {EVIL: EVIL}, "supported_types": (EVIL,), "pending_reversals": (reversal,)}
    ledger.record_status(Status(**{**vars(status), **told, "pending_reversal_count": 1}))
    operation = ledger.add_operation(["web-01", "web-02"], EVIL, MARKUP, {EVIL: EVIL}, Origin(EVIL, EVIL))
    sent = [row.command for row in ledger.commands("web-01")]
    result = Feedback(
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
    ledger.record_feedback("web-01", [result])
    file = tmp_path / EVIL
    file.write_text("x")
    ledger.blobs.put(file)
    ledger.close()
    return {"command": sent[0].id, "operation": operation.id}


@pytest.fixture
def run(url: str) -> Callable[..., str]:
    def call(words: list[str], tool: typer.Typer = app) -> str:
        done = CliRunner().invoke(tool, words, env={"ACM_LEDGER": url, "COLUMNS": "2000"}, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return call


def test_every_command_is_known_to_these_tests() -> None:
    own_words = {words.strip() for words in OWN_WORDS.split("|")}
    assert set(leaves(typer.main.get_command(app))) == TOLD_BY_AGENTS.keys() | own_words


@pytest.mark.parametrize("name", TOLD_BY_AGENTS)
def test_no_command_prints_what_an_agent_says_as_more_than_words(
    name: str, run: Callable[..., str], ids: dict[str, str]
) -> None:
    words = [word.format(**ids) for word in TOLD_BY_AGENTS[name]]
    shown = run(words)
    assert_harmless(shown)
    if name in ("agents", "active-responses", "show", "operation show"):
        assert MARKUP in shown, "it says what the agent said"
    assert run([*words, "--json"]).isascii()


def test_words_of_others_in_an_error_are_harmless(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACM_LEDGER", url)
    monkeypatch.setattr(sys, "argv", ["acm", "blob", "put", f"/nowhere/{EVIL}"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().err
    assert shown.startswith("acm: ")
    assert_harmless(shown)


def test_a_line_of_the_log_is_one_line_of_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    try:
        log = structlog.get_logger("acm.test")
        log.warning("feedback_refused", reason=f"{EVIL}\nlevel=info event=forged", refused=[EVIL], agent="web-01")
        try:
            raise ValueError(EVIL)
        except ValueError:
            log.exception("handler_failed")
    finally:
        structlog.reset_defaults()
    shown = capsys.readouterr().err
    assert_harmless(shown)
    assert len(shown.splitlines()) == 2


def test_the_agents_own_lists_are_harmless(tmp_path: Path, run: Callable[..., str]) -> None:
    store = DiskCommandStore.open(tmp_path / "state", now=lambda: datetime.now(UTC))
    store.store_command(command(EVIL, command_type=EVIL), datetime.now(UTC))
    store.close()
    shown = run(["queue", "--state", str(tmp_path / "state")], agent_cli.app)
    assert MARKUP in shown
    assert_harmless(shown)
    assert json.loads(run(["queue", "--state", str(tmp_path / "state"), "--json"], agent_cli.app))[0]["type"] == EVIL


@pytest.mark.parametrize("text", ["plain", "Grüße, 世界 €", "two\n\tlines"])
def test_harmless_words_stay_as_they_are(text: str) -> None:
    assert plain(text) == text


def test_what_is_said_is_plain(capsys: pytest.CaptureFixture[Any]) -> None:
    say(EVIL)
    assert_harmless(capsys.readouterr().out)
