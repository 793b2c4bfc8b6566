"""Enrolled agents and a server that signs, as real processes; and a client that may publish whatever it likes."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from broker.contract.messages import JsonObject
from broker.mqtt.connection import MqttConnection
from broker.mqtt.delivery import Delivery
from tests.acceptance.conftest import Site
from tests.support.waiting import wait_for


class Eavesdropper:
    """Keeps all that is said to and by agents, and says it again."""

    def __init__(self, url: str) -> None:
        self.connection = MqttConnection(
            url, client_id="mallory", clean_start=True, session_expiry_s=0, subscriptions=["acm/#"]
        )
        self.heard: list[Delivery] = []

    def on(self, topic: str) -> list[Delivery]:
        taken = self.connection.drain(0.1)
        self.connection.acknowledge(taken)
        self.heard += taken
        return [delivery for delivery in self.heard if delivery.topic == topic]

    def results(self, agent: str, command_id: str) -> list[JsonObject]:
        frames = [json.loads(delivery.payload) for delivery in self.on(f"acm/{agent}/feedback")]
        said = [item for frame in frames for item in (frame if isinstance(frame, list) else [frame])]
        return [item for item in said if item.get("command_id") == command_id and item["status"] == "completed"]


@pytest.fixture
def mallory(signing_site: Site) -> Iterator[Eavesdropper]:
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


def test_a_captured_command_is_run_once_and_by_nobody_else(signing_site: Site, mallory: Eavesdropper) -> None:
    site = signing_site
    start(site, "web-01", "web-02")
    before = site.wait_online("web-01")["incarnation"]
    sent = site.acm("send", "web-01", "restart-agent", "--wait", "40")
    assert sent["result"]["outcome"] == "success"
    assert "accepts_unsigned" not in sent["result"]
    wait_for(lambda: site.queue("web-01") == [], "the deletion after the signed ack")
    after = site.wait_online("web-01")["incarnation"]
    assert after != before
    captured = mallory.on("acm/web-01/command")[0].payload
    mallory.connection.publish("acm/web-01/command", captured)
    wait_for(lambda: len(mallory.results("web-01", sent["id"])) > 1, "the result to be said again")
    mallory.connection.publish("acm/web-02/command", captured)
    (refusal,) = wait_for(lambda: mallory.results("web-02", sent["id"]), "the refusal")
    assert (refusal["code"], "signed for the agent 'web-01'" in refusal["message"]) == ("rejected", True)
    assert site.acm("send", "web-01", "get-agent-configuration", "--wait", "40")["result"]["incarnation"] == after
    assert site.show(sent["id"])["result"]["digest"] == sent["result"]["digest"]
    assert completed(site, "web-02") == []


def test_a_cancel_and_an_ack_that_nobody_signed_are_refused(signing_site: Site, mallory: Eavesdropper) -> None:
    site = signing_site
    start(site, "web-01")
    assert site.server is not None
    site.server.kill()
    sent = site.send("web-01", "get-agent-configuration")
    site.start_server()
    (result,) = wait_for(lambda: mallory.results("web-01", sent), "the result")
    forged = {"command_id": sent, "digest": result["digest"]}
    mallory.connection.publish("acm/web-01/ack", json.dumps(forged).encode())
    mallory.connection.publish("acm/web-01/control", json.dumps({"action": "cancel", "command_id": sent}).encode())

    def refused() -> str:
        return str(site.wait_online("web-01").get("last_error"))

    wait_for(lambda: "refuses a control that its server has not signed" in refused(), "the refusal in the status")


def test_a_re_enrolled_agent_takes_nothing_that_was_signed_before(signing_site: Site, mallory: Eavesdropper) -> None:
    site = signing_site
    start(site, "web-01")
    sent = site.acm("send", "web-01", "get-agent-configuration", "--wait", "40")["id"]
    captured = mallory.on("acm/web-01/command")[0].payload
    site.programs.pop().stop()
    site.state("web-01").rename(site.directory / "lost")
    start(site, "web-01")
    mallory.heard.clear()
    mallory.connection.publish("acm/web-01/command", captured)
    (refusal,) = wait_for(lambda: mallory.results("web-01", sent), "the refusal")
    assert (refusal["code"], "another enrolment of 'web-01'" in refusal["message"]) == ("rejected", True)
    assert site.acm("send", "web-01", "get-agent-configuration", "--wait", "40")["result"]["outcome"] == "success"


def test_an_agent_that_nobody_could_command_does_not_start(signing_site: Site) -> None:
    argv = ["--agent", "web-01", "--broker", signing_site.broker_url]
    agent = signing_site.start_enrolled_agent("web-01", *argv)
    assert agent.process.wait(30) == 3
    said = agent.log.read_text()
    assert "is not enrolled" in said
    assert "acm-agent enroll" in said
    assert "Traceback" not in said


def test_a_ledger_restored_from_a_backup_uses_no_number_twice(signing_site: Site) -> None:
    site = signing_site
    start(site, "web-01")
    site.acm("send", "web-01", "get-agent-configuration", "--wait", "40")
    assert site.server is not None
    site.server.stop()
    ledger, backup = site.directory / "ledger.db", site.directory / "backup.db"
    shutil.copy(ledger, backup)
    site.start_server()
    lost = site.acm("send", "web-01", "get-agent-configuration", "--wait", "40")
    site.server.stop()
    shutil.copy(backup, ledger)
    site.start_server()
    sent = site.acm("send", "web-01", "get-agent-configuration", "--wait", "40")
    assert sent["result"]["outcome"] == "success"
    assert sent["result"]["sequence"]["epoch"] > lost["result"]["sequence"]["epoch"]
