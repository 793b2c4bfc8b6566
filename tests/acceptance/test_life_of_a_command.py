"""One command's way through real processes, also if they die."""

import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
from tests.acceptance.conftest import Site
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("both_ledgers")


def test_restart_is_proved_by_a_new_incarnation(site: Site) -> None:
    site.start_agent("web-01")
    before = site.wait_online("web-01")["incarnation"]
    result = site.sent("web-01", "restart-agent", "--wait", "30")["result"]
    assert (result["status"], result["outcome"]) == ("completed", "success")
    assert result["data"]["previous_incarnation"] == before
    assert result["incarnation"] == result["data"]["incarnation"] != before
    assert result["data"]["started_by"] == "command"
    wait_for(lambda: site.queue("web-01") == [], "the queue to be empty")


def test_unsupported_type_ends_in_an_error_that_lists_the_supported_ones(site: Site) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    result = site.sent("web-01", "make-coffee", "--force", "--wait", "30", check=4)["result"]
    assert result["code"] == "unsupported"
    assert "restart-agent" in result["message"]


def test_result_waits_on_the_agent_while_the_server_is_down(site: Site) -> None:
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    command_id = site.send("web-01", "note-once", f"path={notes}", "hold_s=3")
    wait_for(notes.exists, "the command to begin")
    assert site.server is not None
    site.server.kill()
    wait_for(lambda: site.queue("web-01") == ["done"], "the result to wait on the agent")
    site.start_server()
    assert site.result(command_id)["outcome"] == "success"
    wait_for(lambda: site.queue("web-01") == [], "the deletion after the ack")


@pytest.mark.parametrize(("command_type", "code", "runs"), [("note-once", "interrupted", 1), ("note-again", None, 2)])
def test_kill_9_while_a_command_runs(site: Site, command_type: str, code: str | None, runs: int) -> None:
    agent = site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    command_id = site.send("web-01", command_type, f"path={notes}", "hold_s=2")
    wait_for(notes.exists, "the command to begin")
    agent.kill()
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    assert site.result(command_id).get("code") == code
    assert notes.read_text().splitlines() == [command_id] * runs


def test_kill_9_while_commands_are_pending_and_while_a_result_waits(site: Site) -> None:
    agent = site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    first = site.enqueue("web-01", "note-once", {"path": str(notes), "hold_s": 5})
    second = site.enqueue("web-01", "note-once", {"path": str(notes)})
    wait_for(lambda: len(site.queue("web-01")) == 2, "both to be stored")
    assert site.server is not None
    site.server.kill()
    wait_for(lambda: site.queue("web-01") == ["done", "done"], "both results", 60)
    agent.kill()
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.start_server()
    assert [site.result(command)["outcome"] for command in (first, second)] == ["success", "success"]
    assert notes.read_text().splitlines() == [first, second]


def test_second_server_is_refused_and_starts_after_kill_9_of_the_first(site: Site) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    first = site.server
    assert first is not None
    second = site.start_server()
    assert second.process.wait(30) == 1
    assert f"process {first.process.pid} on {socket.gethostname()}" in second.log.read_text()
    assert site.acm("agents")[0]["state"] == "online"
    first.kill()
    assert site.acm("agents")[0]["state"] == "unknown"
    site.start_server()
    assert site.result(site.send("web-01", "get-agent-configuration"))["outcome"] == "success"
    assert site.acm("agents")[0]["state"] == "online"


def test_agent_whose_store_is_put_back_runs_what_it_had_accepted(site: Site) -> None:
    """A restored state directory: no later command shows the server what is missing."""
    agent = site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    assert site.result(site.enqueue("web-01", "note-once", {"path": str(notes)}))["outcome"] == "success"
    agent.stop()
    copy = site.directory / "copy"
    shutil.copytree(site.state("web-01"), copy)
    agent = site.start_agent("web-01", module="tests.acceptance.slow_agent")
    sent = [site.enqueue("web-01", "note-once", {"path": str(notes), "hold_s": 60}) for _ in range(2)]
    wait_for(lambda: [site.show(name)["state"] for name in sent] == ["running", "accepted"], "both to be accepted")
    agent.kill()
    shutil.rmtree(site.state("web-01"))
    copy.rename(site.state("web-01"))
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    wait_for(lambda: site.queue("web-01") == ["processing", "pending"], "the agent to have both again")
    for name in sent:
        site.acm("cancel", name)
    assert [site.result(name)["code"] for name in sent] == ["cancelled", "cancelled"]


def test_queued_and_running_commands_are_cancelled(site: Site) -> None:
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    running = site.send("web-01", "note-once", f"path={notes}", "hold_s=50")
    queued = site.send("web-01", "note-once", f"path={notes}")
    wait_for(lambda: notes.exists() and len(site.queue("web-01")) == 2, "one to run and one to wait")
    site.acm("cancel", queued)
    site.acm("cancel", running)
    assert site.result(running)["code"] == "cancelled"
    assert site.result(queued)["code"] == "cancelled"
    assert notes.read_text().splitlines() == [running]


def test_command_that_exceeds_its_deadline_is_timed_out(site: Site) -> None:
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    slow = site.send("web-01", "note-once", f"path={notes}", "hold_s=50", "--timeout", "1s")
    assert site.result(slow)["code"] == "timed_out"
    assert notes.read_text().splitlines() == [slow]


def test_command_that_cannot_begin_in_time_expires(site: Site) -> None:
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    before_it = site.send("web-01", "note-once", f"path={notes}", "hold_s=50")
    late = site.send("web-01", "note-once", f"path={notes}", "--expires-in", "1s")
    expires_at = datetime.fromisoformat(site.show(late)["command"]["expires_at"])
    wait_for(lambda: datetime.now(UTC) > expires_at and len(site.queue("web-01")) == 2, "it to expire in the queue")
    site.acm("cancel", before_it)
    assert site.result(late)["code"] == "expired"
    assert notes.read_text().splitlines() == [before_it]


@pytest.mark.parametrize("fault", ["restart", "kill", "lose_data"])
def test_agents_and_server_recover_from_a_lost_broker(site: Site, broker: Any, fault: str) -> None:
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    first = site.send("web-01", "note-once", f"path={notes}", "hold_s=1")
    wait_for(notes.exists, "the first to begin")
    if fault == "kill":
        broker.kill()
        second = site.send("web-01", "note-once", f"path={notes}")
        broker.start()
    else:
        getattr(broker, fault)()
        second = site.send("web-01", "note-once", f"path={notes}")
    assert [site.result(command, 60)["outcome"] for command in (first, second)] == ["success", "success"]
    assert notes.read_text().splitlines() == [first, second]


def test_thousand_commands_run_in_order(site: Site) -> None:
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    origin = Origin("test", "acceptance")
    with site.opened_ledger() as ledger:
        sent = [
            ledger.add_command("web-01", CommandRequest("note-once", {"path": str(notes)}, origin)).id
            for _ in range(1000)
        ]
    for command_id in (sent[0], sent[500], sent[-1]):
        assert site.result(command_id, 90)["outcome"] == "success"
    assert Path(notes).read_text().splitlines() == sent
    wait_for(lambda: site.queue("web-01") == [], "every command to be deleted")
