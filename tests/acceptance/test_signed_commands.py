"""Enrolled agents and a server that signs, as real processes; and a client that may publish whatever it likes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.contract.messages import JsonObject
from broker.mqtt.connection import MqttConnection
from broker.mqtt.delivery import Delivery
from tests.acceptance.conftest import Site
from tests.support.postgresql import shared_instance
from tests.support.waiting import wait_for


class Eavesdropper:
    """Records all messages to and from agents, and can publish them again."""

    def __init__(self, url: str) -> None:
        self.connection = MqttConnection(
            url, client_id="mallory", clean_start=True, session_expiry_s=0, subscriptions=["acm/#"]
        )
        self.recorded: list[Delivery] = []

    def on(self, topic: str) -> list[Delivery]:
        taken = self.connection.drain(0.1)
        self.connection.acknowledge(taken)
        self.recorded += taken
        return [delivery for delivery in self.recorded if delivery.topic == topic]

    def results(self, agent: str, command_id: str) -> list[JsonObject]:
        frames = [json.loads(delivery.payload) for delivery in self.on(f"acm/{agent}/feedback")]
        items = [item for frame in frames for item in (frame if isinstance(frame, list) else [frame])]
        return [item for item in items if item.get("command_id") == command_id and item["status"] == "completed"]


@pytest.fixture
def eavesdropper(signing_site: Site) -> Iterator[Eavesdropper]:
    eavesdropper = Eavesdropper(signing_site.broker_url)
    with eavesdropper.connection:
        assert eavesdropper.connection.wait_connected(10)
        yield eavesdropper


def start(site: Site, *agents: str) -> None:
    for agent in agents:
        site.enroll(agent)
        site.start_enrolled_agent(agent)
    for agent in agents:
        assert not site.wait_online(agent)["accepts_unsigned"]


def completed(site: Site, agent: str) -> list[Any]:
    return [row["id"] for row in site.acm("commands", "--agent", agent, "--state", "completed")]


def test_captured_command_runs_once_and_on_no_other_agent(signing_site: Site, eavesdropper: Eavesdropper) -> None:
    site = signing_site
    start(site, "web-01", "web-02")
    before = site.wait_online("web-01")["incarnation"]
    sent = site.sent("web-01", "restart-agent", "--wait", "40")
    assert sent["result"]["outcome"] == "success"
    assert "accepts_unsigned" not in sent["result"]
    wait_for(lambda: site.queue("web-01") == [], "the deletion after the signed ack")
    after = site.wait_online("web-01")["incarnation"]
    assert after != before
    captured = eavesdropper.on("acm/web-01/command")[0].payload
    eavesdropper.connection.publish("acm/web-01/command", captured)
    wait_for(lambda: len(eavesdropper.results("web-01", sent["id"])) > 1, "the result to be sent again")
    eavesdropper.connection.publish("acm/web-02/command", captured)
    (refusal,) = wait_for(lambda: eavesdropper.results("web-02", sent["id"]), "the refusal")
    assert (refusal["code"], refusal["data"]) == ("rejected", {"refused": "message"})
    assert "'web-01'" in refusal["message"]
    assert site.sent("web-01", "get-agent-configuration", "--wait", "40")["result"]["incarnation"] == after
    assert site.show(sent["id"])["result"]["digest"] == sent["result"]["digest"]
    assert completed(site, "web-02") == []


def test_unsigned_cancel_and_ack_are_refused(signing_site: Site, eavesdropper: Eavesdropper) -> None:
    site = signing_site
    start(site, "web-01")
    assert site.server is not None
    site.server.kill()
    sent = site.send("web-01", "get-agent-configuration")
    site.start_server()
    (result,) = wait_for(lambda: eavesdropper.results("web-01", sent), "the result")
    forged = {"command_id": sent, "digest": result["digest"]}
    eavesdropper.connection.publish("acm/web-01/ack", json.dumps(forged).encode())
    eavesdropper.connection.publish("acm/web-01/control", json.dumps({"action": "cancel", "command_id": sent}).encode())

    def refused() -> str:
        return str(site.wait_online("web-01").get("last_error"))

    wait_for(lambda: "refuses a control that its server has not signed" in refused(), "the refusal in the status")


def test_re_enrolled_agent_rejects_frames_signed_before(signing_site: Site, eavesdropper: Eavesdropper) -> None:
    site = signing_site
    start(site, "web-01")
    sent = site.sent("web-01", "get-agent-configuration", "--wait", "40")["id"]
    captured = eavesdropper.on("acm/web-01/command")[0].payload
    site.programs.pop().stop()
    site.state("web-01").rename(site.directory / "lost")
    start(site, "web-01")
    eavesdropper.recorded.clear()
    eavesdropper.connection.publish("acm/web-01/command", captured)
    (refusal,) = wait_for(lambda: eavesdropper.results("web-01", sent), "the refusal")
    assert (refusal["code"], refusal["data"]) == ("rejected", {"refused": "message"})
    assert "enrolment of 'web-01'" in refusal["message"]
    assert site.sent("web-01", "get-agent-configuration", "--wait", "40")["result"]["outcome"] == "success"


def test_agent_that_would_reject_every_command_does_not_start(signing_site: Site) -> None:
    argv = ["--agent", "web-01", "--broker", signing_site.broker_url]
    agent = signing_site.start_enrolled_agent("web-01", *argv)
    assert agent.process.wait(30) == 3
    log = agent.log.read_text()
    assert "acm-agent enroll" in log
    assert "Traceback" not in log


def copied(url: str) -> str:
    """Copy a ledger that no program has open, and return the copy's URL."""
    if not url.startswith("sqlite:///"):
        return shared_instance().copy(url)
    file = Path(url.removeprefix("sqlite:///"))
    return f"sqlite:///{shutil.copy(file, file.with_name('backup.db'))}"


def test_restored_ledger_uses_no_sequence_number_twice(signing_site: Site) -> None:
    site = signing_site
    start(site, "web-01")
    site.sent("web-01", "get-agent-configuration", "--wait", "40")
    assert site.server is not None
    site.server.stop()
    backup = copied(site.ledger)
    site.start_server()
    lost = site.sent("web-01", "get-agent-configuration", "--wait", "40")
    site.server.stop()
    site.ledger = backup
    site.start_server()
    sent = site.sent("web-01", "get-agent-configuration", "--wait", "40")
    assert sent["result"]["outcome"] == "success"
    assert sent["result"]["sequence"]["epoch"] > lost["result"]["sequence"]["epoch"]
