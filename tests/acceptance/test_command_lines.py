"""acm and acm-agent as their users run them: output and exit codes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from broker.app.factories import open_database, open_ledger
from broker.cli.main import app as broker_app
from broker.contract.messages import Origin, PendingReversal, Status
from broker.ledger.enqueue import CommandRequest
from broker.mosquitto.process import EmbeddedMosquitto
from broker.mqtt.connection import MqttConnection
from consumer.cli.main import app as agent_app
from consumer.store.opening import open_store
from tests.acceptance.conftest import Program
from tests.support.cli import commands_of
from tests.support.makers import NOW, command, result
from tests.support.recorded import record_feedback, record_status
from tests.support.waiting import wait_for

pytestmark = pytest.mark.own_ledger

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*words: str, program: str = "broker", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", program, *words],
            cwd=ROOT,
            env={**os.environ, "ACM_LEDGER": f"sqlite:///{tmp_path}/ledger.db", **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return call


def assert_one_sentence(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_send_prints_the_id_and_show_finds_it(run: Run) -> None:
    sent = run("send", "web-01", "restart-agent", "--allow-unknown", "--expires-in", "10m", "--timeout", "30s")
    assert sent.returncode == 0
    command_id = sent.stdout.strip()
    (shown,) = json.loads(run("show", command_id, "--json").stdout)["commands"]
    assert (shown["id"], shown["state"], shown["command"]["timeout_s"]) == (command_id, "queued", 30.0)
    assert shown["command"]["expires_at"] > shown["command"]["created_at"]
    assert command_id in run("show", command_id).stdout
    assert [row["id"] for row in json.loads(run("commands", "--json", "--state", "queued").stdout)] == [command_id]
    assert run("commands", "--json", "--agent", "web-02").returncode == 6
    assert command_id in run("commands", COLUMNS="80").stdout
    cancelled = json.loads(run("cancel", command_id, "--json").stdout)
    assert (cancelled["state"], cancelled["result"]["code"]) == ("completed", "cancelled")  # it was never sent


def test_parameters_that_are_valid_json_are_sent_as_json(run: Run, tmp_path: Path) -> None:
    document = tmp_path / "parameters.json"
    document.write_text('{"text": "from file", "number": 1}')
    sent = run("send", "web-01", "x", "number=2", "word=two", f"--parameters=@{document}", "--allow-unknown", "--json")
    (command,) = json.loads(sent.stdout)["commands"]
    assert command["command"]["parameters"] == {"text": "from file", "number": 2, "word": "two"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["send", "web-01", "restart-agent"], 6, "Unknown agent 'web-01'"),
        (["audit", "verify", "web-01"], 6, "Unknown agent 'web-01'"),
        (["send", "Web 01", "restart-agent"], 2, "'Web 01'"),
        (["send", "web-01", "restart-agent", "section"], 2, "KEY=VALUE"),
        (["send", "web-01", "restart-agent", "--timeout", "soon"], 2, "'soon'"),
        (["send", "web-01", "restart-agent", "--parameters", "[1]"], 2, "--parameters"),
        (["send", "web-01"], 2, "TYPE"),
        (["show", "nothing"], 1, "'nothing'"),
        (["cancel", "nothing"], 1, "'nothing'"),
        (["commands", "--config", "/nowhere.toml"], 3, "/nowhere.toml"),
        (["commands", "--ledger", "nonsense"], 3, "sqlite:///PATH"),
        (["commands", "--ledger", "foo"], 3, "sqlite:///PATH"),
        (["commands", "--ledger", "mysql://db/acm"], 3, "postgresql://USER@HOST/DATABASE"),
        (["commands", "--ledger", "sqlite:////nowhere/ledger.db"], 3, "There is no ledger at /nowhere/ledger.db"),
        (["server", "--ledger", "sqlite:////nowhere/ledger.db"], 1, "its directory does not exist"),
        (["send", "web-01", "restart-agent", "--allow-unknown", "--ledger", "sqlite://"], 3, "would be lost"),
        (["server", "--ledger", "sqlite:///:memory:"], 3, "would be lost"),
        (["server", "--broker", "http://x"], 3, "must have the form mqtt://HOST:PORT"),
        (["broker", "run", "--port", "99999"], 2, "65535"),
    ],
)
def test_error_is_one_sentence_with_an_exit_code(
    run: Run, words: list[str], code: int, said: str, tmp_path: Path
) -> None:
    open_database(f"sqlite:///{tmp_path}/ledger.db").close()
    assert_one_sentence(run(*words), code, said)


def test_wait_that_times_out_has_its_own_exit_code(run: Run) -> None:
    sent = run("send", "web-01", "restart-agent", "--allow-unknown", "--wait", "0.2", "--json")
    assert sent.returncode == 5
    assert json.loads(sent.stdout)["counts"] == {"queued": 1}
    assert "0.2 s" in sent.stderr


@pytest.mark.parametrize("app", [broker_app, agent_app], ids=["acm", "acm-agent"])
def test_help_of_every_command_has_an_example(app: typer.Typer) -> None:
    for words, described in commands_of(app):
        if not described.hidden:
            shown = CliRunner().invoke(app, [*words.split(), "--help"])
            assert (words, shown.exit_code, "Example" in shown.stdout) == (words, 0, True)


def test_each_program_has_its_own_config_variable(run: Run, tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(f'ca = "{tmp_path}/ca"\n')
    (tmp_path / "agent.toml").write_text('agent = "web-01"\n')
    files = {"ACM_CONFIG": f"{tmp_path}/server.toml", "ACM_AGENT_CONFIG": f"{tmp_path}/agent.toml"}
    assert run("ca", "init", **files).returncode == 0
    assert (tmp_path / "ca" / "ca.key").exists()
    words = ["check-config", "--broker", "mqtt://127.0.0.1:1", "--state", str(tmp_path)]
    assert run(*words, program="consumer", **files).stdout == "The configuration of web-01 is valid.\n"


def test_check_config(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'agent = "web-01"\nbroker = "mqtt://127.0.0.1:1883"\nstate = "{tmp_path}"\n')
    good = run("check-config", "--config", str(config), program="consumer")
    assert (good.returncode, good.stdout) == (0, "The configuration of web-01 is valid.\n")
    config.write_text(config.read_text() + "acept_unsigned = true\n")
    assert_one_sentence(run("check-config", "--config", str(config), program="consumer"), 3, "acept_unsigned")
    (tmp_path / "allow-list").write_text("block - ../block - 0\n")
    section = f'[active_response]\ndirectory = "{tmp_path}"\nallow_list = "{tmp_path}/allow-list"\n'
    config.write_text(config.read_text().replace("acept_unsigned = true\n", section))
    warned = run("check-config", "--config", str(config), program="consumer")
    assert (warned.returncode, "allow-list:1: '../block'" in warned.stderr) == (0, True)
    (tmp_path / "allow-list").unlink()
    assert_one_sentence(
        run("check-config", "--config", str(config), program="consumer"), 3, "allow-list cannot be read"
    )


def test_check_config_warns_of_what_is_missing_around_it(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(
        f'agent = "web-01"\nbroker = "mqtt://127.0.0.1:1883"\nstate = "{tmp_path}"\n'
        '[service]\nkind = "child"\nargv = ["/nonexistent/service"]\n'
        f'[configuration]\ncheck = ["/nonexistent/check"]\ndirectory = "{tmp_path}/shared"\n'
        '[upgrade]\nroot = "/opt/acm"\n'
        f'[active_response]\ndirectory = "{tmp_path}"\nallow_list = "{tmp_path}/allow-list"\n'
    )
    (tmp_path / "allow-list").write_text("block - block\n")
    (tmp_path / "shared").mkdir()
    os.chown(tmp_path / "shared", 65534, 65534)
    checked = run("check-config", "--config", str(config), program="consumer")
    assert (checked.returncode, checked.stdout) == (0, "The configuration of web-01 is valid.\n")
    warnings = checked.stderr.splitlines()
    words = (
        "not enrolled",
        "service.argv",
        "configuration.check",
        "allow-list:1: write",
        "shared belongs to",
        "upgrade",
    )
    assert len(warnings) == len(words)
    for warning, word in zip(warnings, words, strict=True):
        assert word in warning


@pytest.mark.parametrize("program", ["broker", "consumer"])
def test_empty_argument_is_refused(run: Run, program: str) -> None:
    command = {"broker": "commands", "consumer": "queue"}[program]
    assert_one_sentence(run(command, "--state", "", program=program), 2, "'--state' is empty")


def test_error_of_acm_agent_is_one_sentence(run: Run, tmp_path: Path) -> None:
    assert_one_sentence(run("queue", "--state", str(tmp_path), program="consumer"), 4, "cannot be read")
    assert_one_sentence(run("active-responses", "--state", "/nowhere", program="consumer"), 4, "does not exist")
    words = [
        "run",
        "--agent",
        "web-01",
        "--broker",
        "mqtt://127.0.0.1:1",
        "--state",
        "/proc/nowhere",
        "--accept-unsigned",
    ]
    assert_one_sentence(run(*words, program="consumer"), 4, "cannot be used")


@pytest.fixture
def broker_program(tmp_path: Path) -> Iterator[tuple[Program, int]]:
    with EmbeddedMosquitto() as probe:
        port = probe.port
    argv = [sys.executable, "-m", "broker", "broker", "run", "--port", str(port), "--data", str(tmp_path / "data")]
    program = Program(argv, tmp_path / "broker.log")
    yield program, port
    program.stop()


def test_embedded_broker_serves_until_term_and_leaves_no_process(broker_program: tuple[Program, int], run: Run) -> None:
    program, port = broker_program
    wait_for(lambda: f"mqtt://127.0.0.1:{port}" in program.log.read_text(), "the broker to say its address")
    with MqttConnection(f"mqtt://127.0.0.1:{port}", "probe") as connection:
        assert connection.wait_connected(10)
    assert_one_sentence(run("broker", "run", "--port", str(port)), 1, f"Port {port} on 127.0.0.1")
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(20) == 0
    with EmbeddedMosquitto(port):
        pass


def test_brackets_are_shown_literally(run: Run, tmp_path: Path) -> None:
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        record_status(ledger, Status("web-01", True, "0", "i", "b", "g", running_command="[/b]", last_error="[red]"))
    sent = run("send", "web-[a0]*", "[/x]", "--yes", "--wait", "0.1")
    assert sent.returncode == 5
    assert "[/x] for web-[a0]*" in sent.stderr
    assert run("send", "web-01", "[/x]", "--wait", "0.1").returncode == 5
    listed = [run(*words.split(), COLUMNS="150").stdout for words in ("operation list", "commands", "agents")]
    assert [word in text for word, text in zip(("web-[a0]*", "[/x]", "[red]"), listed, strict=True)] == [True] * 3


def test_queue_shows_text_from_others_literally(run: Run, tmp_path: Path) -> None:
    with closing(open_store(tmp_path, now=lambda: NOW)) as store:
        store.store_command(command("[/i]\x1b[2J", command_type="[/x]"), NOW)
    shown = run("queue", "--state", str(tmp_path), program="consumer", COLUMNS="150").stdout
    assert "[/i]\N{REPLACEMENT CHARACTER}[2J" in shown
    assert "[/x]" in shown


def test_text_from_an_agent_cannot_control_the_terminal(run: Run, tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b[31mgone\x07"
    pending = PendingReversal(evil, (evil, "[red]"), evil, "waiting", datetime.now(UTC))
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        command = ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
        record_feedback(ledger, "web-01", [replace(result(command.id), message=evil)])
        record_status(
            ledger, Status("web-01", True, "0", "i", "b", "g", pending_reversals=(pending,), pending_reversal_count=1)
        )
    for shown in (run("show", command.id), run("active-responses", "web-01", COLUMNS="200")):
        assert "gone" in shown.stdout
        assert "\x1b[2J" not in shown.stdout
        assert "\x07" not in shown.stdout
    assert "[red]" in shown.stdout
