"""The lines of one command in the logs of both sides."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.acceptance.conftest import Program, Site
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("both_ledgers")


HOPS = ["command_sent", "command_accepted", "command_running", "command_completed", "result_acked"]


def lines_of(program: Program, command_id: str) -> list[dict[str, Any]]:
    lines = map(json.loads, program.log.read_text().splitlines())
    return [line for line in lines if line.get("command_id") == command_id]


def started(program: Program, event: str) -> dict[str, Any]:
    return next(it for it in map(json.loads, program.log.read_text().splitlines()) if it["event"] == event)


def test_both_logs_have_each_hop_of_a_command(site: Site) -> None:
    agent = site.start_agent("web-01")
    site.wait_online("web-01")
    command_id = site.send("web-01", "get-agent-configuration", "section=broker")
    assert site.result(command_id)["outcome"] == "success"
    assert site.server is not None
    for program in (site.server, agent):
        wait_for(lambda log=program: lines_of(log, command_id)[-1]["event"] == "result_acked", "the ack in the log")
    at_server, at_agent = lines_of(site.server, command_id), lines_of(agent, command_id)
    assert [it["event"] for it in at_agent] == HOPS[1:]
    hops = [it["event"] for it in at_server]
    assert hops == [hop for hop in HOPS if hop in hops]
    assert {"command_sent", "command_completed", "result_acked"} <= set(hops)
    for lines in (at_server, at_agent):
        facts = {(it["agent"], it["type"], it["level"]) for it in lines}
        assert facts == {("web-01", "get-agent-configuration", "info")}
        times = [datetime.fromisoformat(it["timestamp"]) for it in lines]
        assert (times == sorted(times), {it.tzinfo for it in times}) == (True, {UTC})
        completed = lines[-2]
        assert (completed["outcome"], completed["duration_s"] >= 0) == ("success", True)
    assert at_server[-2]["total_s"] >= 0


def test_log_begins_with_version_ledger_and_broker(site: Site) -> None:
    agent = site.start_agent("web-01")
    site.wait_online("web-01")
    assert site.server is not None
    server_line, agent_line = started(site.server, "server_started"), started(agent, "agent_started")
    assert {"version", "broker", "ledger"} <= server_line.keys()
    assert {"version", "broker", "state"} <= agent_line.keys()
