"""Active responses through real processes: active, listed, reversed once, whichever process is killed."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumer.active_response.records import ResponseRecord, ResponseRecords, Reversal, read_pending
from consumer.system.pidfile import PidFile
from tests.acceptance.conftest import ROOT, Program, Site
from tests.support.active_response_scripts import BAD, PYTHON, SHELL, install
from tests.support.waiting import wait_for

SLOW_DELETE = """#!/bin/sh
read -r REQUEST
case "$REQUEST" in *'"command":"delete"'*)
    echo "delete begins" >>journal
    while [ ! -e gate ]; do sleep 0.05; done
    echo "delete ends" >>journal
    exit 0;;
esac
echo '{"command":"check_keys","parameters":{"keys":["k"]}}'
read -r ANSWER
echo "add" >>journal
"""


class Responder:
    """An agent of the site with scripts of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        scripts = {"python": PYTHON, "shell": SHELL, "slow-delete": SLOW_DELETE, "silent": BAD["silent"]}
        for name, text in scripts.items():
            install(site.directory / "bin", name, text)
        allow_list = site.directory / "allow-list"
        allow_list.write_text("".join(f"{name} - {name} - 600\n" for name in scripts))
        allow_list.chmod(0o644)
        self.config = site.directory / "agent.toml"
        self.config.write_text(
            f'[active_response]\ndirectory = "{site.directory}/bin"\nallow_list = "{allow_list}"\n'
            "script_deadline_s = 20.0\n"
        )

    def start(self) -> Program:
        return self.site.start_agent("web-01", "--config", str(self.config))

    def start_crashing(self, step: str) -> Program:
        return self.site.start_crashing_agent("web-01", step, "--config", str(self.config))

    def send(self, script: str, key: str, timeout_s: float) -> str:
        parameters = {"script": script, "alert": {"rule": {"id": key}}, "timeout_s": timeout_s}
        return self.site.enqueue("web-01", "execute-active-response", parameters)

    def result(self, command_id: str) -> Any:
        return self.site.result(command_id)

    def journal(self, key: str = "") -> list[str]:
        path = self.site.state("web-01") / "active-responses" / "home" / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removesuffix(f" {key}") for line in lines if line.endswith(key)]

    def other_command(self) -> None:
        sent = self.site.enqueue("web-01", "get-agent-configuration", {})
        assert self.result(sent)["outcome"] == "success"

    @property
    def idle(self) -> bool:
        """Whether nothing is pending, as the agent's files say."""
        return read_pending(self.site.state("web-01") / "active-responses") == ()


def acm_agent(*words: str) -> str:
    argv, environment = [sys.executable, "-m", "consumer", *words], {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def responder(site: Site) -> Responder:
    return Responder(site)


def test_a_response_is_listed_while_it_is_active_and_taken_back_in_time(responder: Responder) -> None:
    responder.start()
    command_id = responder.send("shell", "5763", timeout_s=600)
    result = responder.result(command_id)
    assert (result["outcome"], result["data"]["state"], result["data"]["keys"]) == ("success", "active", ["5763"])
    (listed,) = wait_for(lambda: responder.site.acm("active-responses", "web-01"), "the status to list it")
    expected = {"script": "shell", "keys": ["5763"], "command_id": command_id}
    assert listed.items() >= {**expected, "agent": "web-01", "state": "waiting"}.items()
    (row,) = responder.site.acm("agents")
    assert row["status"]["pending_reversal_count"] == 1
    (mine,) = json.loads(acm_agent("active-responses", "--state", str(responder.site.state("web-01")), "--json"))
    assert mine.items() >= {**expected, "confirmed": True}.items()
    renewed = responder.result(responder.send("shell", "5763", timeout_s=0.1))
    assert renewed["data"]["state"] == "renewed"
    wait_for(lambda: responder.site.acm("active-responses") == [], "the status to list nothing")
    assert responder.journal("5763") == ["add", "aborted", "delete"]
    assert responder.idle


def test_a_bad_script_and_a_wrong_name_end_in_errors_and_block_nothing(responder: Responder) -> None:
    responder.start()
    silent = responder.send("silent", "1", timeout_s=5)
    with responder.site.opened_ledger() as ledger:
        ledger.request_cancel(silent)
    wrong = responder.send("../bin/python", "1", timeout_s=5)
    good = responder.send("python", "1", timeout_s=0)
    assert responder.result(silent)["code"] == "cancelled"
    refused = responder.result(wrong)
    assert (refused["code"], "is not in this agent's allow-list" in refused["message"]) == ("failed", True)
    assert responder.result(good)["data"]["state"] == "done"
    assert responder.idle


def test_a_slow_reversal_delays_no_command(responder: Responder) -> None:
    responder.start()
    responder.result(responder.send("slow-delete", "k", timeout_s=0.1))
    wait_for(lambda: "delete begins" in responder.journal(), "the reversal to begin")
    responder.other_command()
    assert "delete ends" not in responder.journal()
    (responder.site.state("web-01") / "active-responses" / "home" / "gate").touch()
    wait_for(lambda: responder.idle, "the reversal to end")
    assert responder.journal() == ["add", "delete begins", "delete ends"]


def test_kill_9_at_each_step_of_an_add(responder: Responder) -> None:
    """Either the script never received continue and nothing is pending, or its possible effect is reversed."""
    seen = set()
    for step in ("begun", "recorded", "ended", "confirmed"):
        dying = responder.start_crashing(f"execute-active-response.{step}")
        command_id = responder.send("python", step, timeout_s=1)
        assert dying.process.wait(30) == -9
        agent = responder.start()
        result = responder.result(command_id)
        wait_for(lambda: responder.idle, "nothing to be pending")
        effects = responder.journal(step)
        outcome = (result.get("code"), result["data"]["state"], *effects)
        seen.add(outcome)
        assert outcome in {
            ("interrupted", "not_added"),
            ("interrupted", "uncertain", "delete"),
            ("interrupted", "uncertain", "add", "delete"),
            (None, "active", "add", "delete"),
        }
        assert PidFile(responder.site.state("web-01") / "active-responses" / "script.pid").find() is None
        agent.stop()
    assert {len(outcome) > 2 for outcome in seen} == {False, True}
    assert (None, "active", "add", "delete") in seen


def test_kill_9_at_each_step_of_a_reversal_takes_back_exactly_once(responder: Responder) -> None:
    for step in ("recorded", "begun", "ended", "done"):
        dying = responder.start_crashing(f"execute-active-response.reversal-{step}")
        command_id = responder.send("python", step, timeout_s=0.2)
        assert dying.process.wait(30) == -9
        agent = responder.start()
        assert responder.result(command_id)["data"]["state"] == "active"
        wait_for(lambda: responder.idle, "the reversal to be over")
        assert responder.journal(step) == ["add", "delete"]
        agent.stop()


def test_a_reversal_that_outlives_its_agent_is_waited_for_and_not_begun_again(responder: Responder) -> None:
    agent = responder.start()
    responder.result(responder.send("slow-delete", "k", timeout_s=0.1))
    wait_for(lambda: "delete begins" in responder.journal(), "the reversal to begin")
    agent.kill()
    responder.start()
    responder.other_command()
    (responder.site.state("web-01") / "active-responses" / "home" / "gate").touch()
    wait_for(lambda: responder.idle, "the reversal to end")
    assert responder.journal() == ["add", "delete begins", "delete ends"]


def test_a_reversal_that_came_due_while_the_agent_was_dead_runs_at_once(responder: Responder) -> None:
    agent = responder.start()
    command_id = responder.send("python", "5763", timeout_s=1)
    reverses_at = datetime.fromisoformat(responder.result(command_id)["data"]["reverses_at"])
    agent.kill()
    wait_for(lambda: datetime.now(UTC) > reverses_at, "the time of the reversal")
    responder.start()
    wait_for(lambda: responder.idle, "the overdue reversal")
    assert responder.journal("5763") == ["add", "delete"]


def test_keys_and_names_cannot_move_the_terminals_cursor(tmp_path: Path) -> None:
    evil, now = "\x1b[2J\x1b[31mgone\x07", datetime.now(UTC)
    entry = ResponseRecord(evil, "x", (evil, "[red]"), "c1", "active", now, "b", reversal=Reversal(now, {}, now))
    ResponseRecords(tmp_path / "active-responses").save(entry)
    shown = acm_agent("active-responses", "--state", str(tmp_path))
    assert "gone" in shown
    assert "[red]" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown
