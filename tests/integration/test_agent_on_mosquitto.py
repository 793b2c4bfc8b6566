"""An agent process on a real Mosquitto: stored, acknowledged, run, reported, acked, deleted."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.mosquitto.process import EmbeddedMosquitto
from broker.mqtt.connection import MqttConnection
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


class Desk:
    """Plays the server by hand: publishes what the test says and keeps what the agent says."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.state = directory / "state"
        self.log = directory / "agent.log"
        self.feedback: list[dict[str, Any]] = []
        self.status: list[dict[str, Any]] = []
        self.connection = MqttConnection(
            url,
            client_id="desk",
            clean_start=True,
            session_expiry_s=0,
            subscriptions=["acm/web-01/feedback", "acm/web-01/status"],
        )
        self.agents: list[subprocess.Popen[bytes]] = []

    def start_agent(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "consumer", "run", "--agent", "web-01", "--broker", self.url, "--accept-unsigned"]
        with self.log.open("ab") as log:
            agent = subprocess.Popen([*argv, "--state", str(self.state)], cwd=ROOT, stdout=log, stderr=log)
        self.agents.append(agent)
        return agent

    def send(self, channel: str, message: dict[str, Any]) -> None:
        self.connection.publish(f"acm/web-01/{channel}", json.dumps(message).encode())

    def listen(self) -> None:
        arrived = self.connection.drain(0.1)
        for delivery in arrived:
            frame = json.loads(delivery.payload)
            kept = self.feedback if delivery.topic.endswith("feedback") else self.status
            kept += frame if isinstance(frame, list) else [frame]
        self.connection.acknowledge(arrived)

    def results(self) -> list[dict[str, Any]]:
        self.listen()
        return [item for item in self.feedback if item["status"] == "completed"]

    def wait_online(self) -> dict[str, Any]:
        def online() -> Any:
            self.listen()
            return self.status and self.status[-1]["online"] and self.status[-1]

        return dict(wait_for(online, f"the agent to be online: {self.log.read_text()}"))

    def queue(self) -> list[dict[str, Any]]:
        argv = [sys.executable, "-m", "consumer", "queue", "--state", str(self.state), "--json"]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
        return list(json.loads(done.stdout))

    def ack(self, result: dict[str, Any]) -> None:
        self.send("ack", {"command_id": result["command_id"], "digest": result["digest"]})


def command(name: str, number: int) -> dict[str, Any]:
    return {
        "id": name,
        "type": "get-agent-configuration",
        "parameters": {},
        "origin": {"name": "desk", "module": "test"},
        "created_at": "2026-01-02T03:04:05Z",
        "sequence": {"epoch": 1, "number": number},
    }


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with EmbeddedMosquitto() as broker:
        desk = Desk(broker.url, tmp_path)
        with desk.connection:
            assert desk.connection.wait_connected(10)
            yield desk
            for agent in desk.agents:
                if agent.poll() is None:
                    agent.terminate()
                    agent.wait(15)


def test_the_result_stays_until_its_ack_and_is_deleted_by_it(desk: Desk) -> None:
    desk.start_agent()
    desk.wait_online()
    desk.send("command", command("a", 1))
    result = wait_for(desk.results, "the result")[0]
    assert (result["outcome"], result["command"]["status"]) == ("success", "processing")
    assert [(row["id"], row["state"]) for row in desk.queue()] == [("a", "completed")]
    desk.ack({**result, "digest": "another"})
    desk.send("command", command("b", 2))
    wait_for(lambda: len({item["command_id"] for item in desk.results()}) == 2, "the second result")
    assert [row["id"] for row in desk.queue()] == ["a", "b"]
    for item in desk.results():
        desk.ack(item)
    wait_for(lambda: desk.queue() == [], "the deletion")


def test_a_number_too_high_is_answered_with_the_gap(desk: Desk) -> None:
    desk.start_agent()
    desk.wait_online()
    desk.send("command", command("c", 3))

    def gaps() -> Any:
        desk.listen()
        return [item for item in desk.feedback if item["kind"] == "gap"]

    assert wait_for(gaps, "the gap")[0]["expected"] == 1
    assert desk.queue() == []


def test_kill_9_while_a_result_waits(desk: Desk) -> None:
    agent = desk.start_agent()
    desk.wait_online()
    desk.send("command", command("a", 1))
    result = wait_for(desk.results, "the result")[0]
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    wait_for(lambda: desk.listen() or not desk.status[-1]["online"], "the last will")
    desk.feedback.clear()
    desk.start_agent()
    again = wait_for(desk.results, "the result again")[0]
    assert again == result


def test_lock_on_the_store_is_in_the_status_and_term_still_ends_the_agent(desk: Desk) -> None:
    agent = desk.start_agent()
    desk.wait_online()

    def reports_the_lock() -> bool:
        desk.listen()
        return "locked by another process" in (desk.status[-1].get("last_error") or "")

    with closing(sqlite3.connect(desk.state / "commands" / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        desk.send("command", command("a", 1))
        wait_for(reports_the_lock, "the lock to be in the status")
        agent.terminate()
        assert agent.wait(10) == 0
    assert "store_locked" in desk.log.read_text()
    desk.start_agent()
    wait_for(lambda: [result["command_id"] for result in desk.results()] == ["a"], "the command's result")


RECOVERY_RECORDS = (
    "enrolment/attempt.json",
    "configuration/journal.json",
    "active-responses/response.json",
    "active-responses/script.pid",
    "active-responses/runs/run/status",
    "service.pid",
    "service-restart",
    "groups",
)


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[1]", None])
def test_damaged_records_of_the_recovery_do_not_stop_the_start(desk: Desk, content: bytes | None) -> None:
    desk.state.mkdir(mode=0o700)
    for name in RECOVERY_RECORDS:
        path = desk.state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if content is None else path.write_bytes(content)
    desk.start_agent()
    error = desk.wait_online()["last_error"]
    assert "enrolment/attempt.damaged" in error
    assert "response.damaged" in error
    desk.send("command", command("a", 1))
    assert wait_for(desk.results, "the result")[0]["outcome"] == "success"
