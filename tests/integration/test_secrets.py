"""Secrets of commands and processes: where they could show, and that they do not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
import structlog

from broker.app.factories import open_ledger
from broker.contract.codec import to_json
from broker.contract.commands import COMMAND_TYPES, is_secret, mask_secret_parameters
from broker.contract.messages import Command, Feedback, JsonObject, Origin
from broker.contract.secret_shapes import mask_shapes
from broker.contract.secrets import MASK, SECRET, secret_names
from broker.contract.states import FeedbackKind, Outcome
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from broker.system.logging import configure_logs
from consumer.engine.feedback import FeedbackFactory
from consumer.handler import Result
from tests.support.recorded import record_feedback

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "acm1." + "s" * 43 + "." + "0" * 64
ORIGIN = Origin("test", "test")


@dataclass(frozen=True)
class OpenDoor:
    """A type of a plug-in; nothing but the mark says that its code is secret."""

    code: Annotated[str, msgspec.Meta(max_length=9), SECRET]
    spare: Annotated[str, SECRET] | None = None
    door: str = "front"


def test_only_marked_parameters_are_secret() -> None:
    assert secret_names(OpenDoor) == {"code", "spare"}
    assert {name: secret_names(kind.parameters) for name, kind in COMMAND_TYPES.items()} == {
        name: {"token"} if name == "enroll-agent" else set() for name in COMMAND_TYPES
    }
    assert is_secret("unknown", "db_password")
    assert not is_secret("unknown", "code")
    assert is_secret("unknown", "code", OpenDoor)


def test_an_agent_masks_the_secrets_of_a_plug_in_in_its_echo() -> None:
    command = Command("c1", "open-door", {"code": "hush", "door": "back"}, ORIGIN, NOW)
    reports = FeedbackFactory("web-01", "i1", "g1", {"open-door": OpenDoor})
    echo = reports.result(command, Result("Done."), NOW).feedback.command
    assert echo is not None
    assert echo["parameters"] == {"code": MASK, "door": "back"}
    assert mask_secret_parameters(command, {"parameters": {"code": "hush"}}, OpenDoor) == {"parameters": {"code": MASK}}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


def result_of(command: Command, echo: JsonObject | None) -> Feedback:
    return Feedback(
        FeedbackKind.RESULT,
        "web-01",
        "g1",
        "i1",
        "completed",
        "Done.",
        command_id=command.id,
        command=echo,
        outcome=Outcome.SUCCESS,
        finished_at=NOW,
        digest="d",
    )


@pytest.mark.parametrize("echo", ["masked", "shown", "left out"])
def test_a_token_is_forgotten_once_its_command_is_completed(ledger: Ledger, tmp_path: Path, echo: str) -> None:
    command = ledger.add_command(
        "web-01", CommandRequest("enroll-agent", {"server": "https://acm", "token": TOKEN}, ORIGIN)
    )
    assert TOKEN in str(ledger.get(command.id).command)
    shown = {"masked": mask_secret_parameters(command, to_json(command)), "shown": to_json(command), "left out": None}[
        echo
    ]
    record_feedback(ledger, "web-01", [result_of(command, json.loads(json.dumps(shown, default=str)))])
    row = ledger.get(command.id)
    assert row.state is CommandState.COMPLETED
    assert row.command.parameters == {"server": "https://acm", "token": MASK}
    assert TOKEN not in str(row)
    assert "s" * 43 not in str(row)


def test_other_values_are_unchanged(ledger: Ledger) -> None:
    command = ledger.add_command("web-01", CommandRequest("set-group", {"groups": ["web"]}, ORIGIN))
    record_feedback(ledger, "web-01", [result_of(command, to_json(command))])
    assert ledger.get(command.id).command == command


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"token {TOKEN} refused", f"token acm1.{MASK}.{'0' * 64} refused"),
        ("mqtts://me:hush@broker:8883 is away", f"mqtts://me:{MASK}@broker:8883 is away"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_the_shapes_of_secrets_are_masked(text: str, shown: str) -> None:
    assert mask_shapes(text) == shown


def test_no_log_line_shows_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    log = structlog.get_logger("test")
    try:
        raise ValueError("cannot reach mqtts://me:hush@broker")
    except ValueError as error:
        log.error("failed", token="hush", reason=f"bad {TOKEN}", error=error, number=3, exc_info=True)
    logged = capsys.readouterr().err
    assert "hush" not in logged
    assert TOKEN not in logged
    assert '"number":3' in logged
    assert "Traceback" in logged


def run(module: str, *words: str, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("consumer", "enroll", "--server", "https://a", "--agent", "a", "--token", TOKEN),
            "write - and pass it on stdin",
        ),
        (("consumer", "run", "--agent", "a", "--broker", "mqtt://me:hush@broker"), "ACM_BROKER"),
        (("broker", "server", "--broker", "mqtt://me:hush@broker"), "ACM_BROKER"),
        (("broker", "agents", "--ledger", "postgresql://me@corp:hush@db/acm"), "ACM_LEDGER"),
        (("broker", "send", "a", "enroll-agent", "server=https://a", f"token={TOKEN}"), "token=@FILE"),
        (("broker", "send", "a", "enroll-agent", "--parameters", json.dumps({"token": TOKEN})), "token=@FILE"),
        (("broker", "send", "a", "of-a-plug-in", "db_password=hush"), "db_password=@FILE"),
    ],
)
def test_a_secret_on_a_command_line_is_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    module, *rest = words
    state = ["--state", str(tmp_path / "state")] if module == "consumer" else []
    allowed = ["--allow-unknown"] if rest[0] == "send" else []
    extra = {} if "--ledger" in rest else {"ACM_LEDGER": f"sqlite:///{tmp_path}/ledger.db"}
    done = run(module, *rest, *state, *allowed, **extra)
    told = " ".join(done.stderr.replace("│", " ").split())
    assert done.returncode in (2, 3), done.stderr
    assert said in told
    assert "every user of the machine" in told
    assert not {"hush", TOKEN} & set(told.split())


@pytest.mark.parametrize("way", ["stdin", "file", "environment"])
def test_token_is_read_from_where_no_other_user_sees_it(way: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    where = {"stdin": ["--token", "-"], "file": ["--token", f"@{tmp_path}/token"], "environment": []}[way]
    words = ["--server", "https://127.0.0.1:1", "--agent", "a", "--state", str(tmp_path / "state"), *where]
    environment = {"ACM_ENROLMENT_TOKEN": TOKEN} if way == "environment" else {}
    done = run("consumer", "enroll", *words, stdin=TOKEN if way == "stdin" else "", **environment)
    assert "127.0.0.1:1" in done.stderr  # it was a token: only the server is missing
    assert TOKEN not in done.stderr


def test_traceback_of_a_crash_shows_no_values() -> None:
    crashing = "def crash():\n    code = 'hu' + 'sh'\n    raise RuntimeError(len(code))\n"
    commands = {"broker": ("broker.cli.types", "types"), "consumer": ("consumer.cli.upgrade", "self-test")}
    for program, (module, name) in commands.items():
        script = (
            f"import sys; import {module} as module; from {program}.cli.main import main\n{crashing}"
            f"info = next(it for it in module.app.registered_commands if it.name in ({name!r}, None))\n"
            f"info.callback, info.name = crash, {name!r}\n"
        )
        done = run_script(f"{script}sys.argv = ['acm', {name!r}]\nmain()")
        assert "RuntimeError" in done.stderr
        assert "'hush'" not in done.stderr


def run_script(script: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
