"""Messages that any MQTT client may publish as commands: foreign forms, garbage, duplicates, retained messages."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from broker.mqtt.connection import MqttConnection
from tests.acceptance.conftest import Site
from tests.support.waiting import wait_for

FORMS = sorted((Path(__file__).parents[1] / "contract" / "frames").glob("foreign-?.json"))


class Listener:
    """Keeps every feedback of one agent."""

    def __init__(self, url: str, agent: str) -> None:
        self.feedback: list[dict[str, Any]] = []
        self._topic = f"acm/{agent}/feedback"
        self.connection = MqttConnection(
            url, client_id="listener", clean_start=True, session_expiry_s=0, subscriptions=[self._topic]
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        while not self._ended.is_set():
            arrived = self.connection.drain(0.2)
            for delivery in arrived:
                frame = json.loads(delivery.payload)
                self.feedback += frame if isinstance(frame, list) else [frame]
            self.connection.acknowledge(arrived)

    def results(self) -> list[dict[str, Any]]:
        return [item for item in self.feedback if item["status"] == "completed"]

    def __enter__(self) -> "Listener":
        self.connection.start()
        assert self.connection.wait_connected(10)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.connection.stop()


@pytest.fixture
def listener(site: Site) -> Iterator[Listener]:
    with Listener(site.broker_url, "web-01") as listener:
        yield listener


def publish(site: Site, payload: bytes, *arguments: str) -> None:
    port = str(urlsplit(site.broker_url).port)
    what = "-s" if payload else "-n"  # it refuses to read nothing
    argv = ["mosquitto_pub", "-p", port, "-q", "1", "-V", "5", "-t", "acm/web-01/command", what, *arguments]
    subprocess.run(argv, input=payload, check=True, timeout=20)


def test_every_foreign_form_has_a_file() -> None:
    assert [path.stem[-1] for path in FORMS] == list("abcdef")


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("accepting", [True, False])
def test_foreign_form_gets_one_result(site: Site, listener: Listener, form: Path, accepting: bool) -> None:
    if accepting:
        site.start_agent("web-01")
    else:
        site.enroll("web-01")
        site.start_enrolled_agent("web-01")
    site.wait_online("web-01")
    publish(site, form.read_bytes())
    wait_for(listener.results, "the result")
    raw = [item for item in listener.results() if not item.get("sequence")]
    assert len({item["command_id"] for item in raw}) == 1
    assert (raw[0].get("code") == "rejected", raw[0].get("accepts_unsigned", False)) == (not accepting, accepting)
    original = json.loads(form.read_text())
    assert raw[0]["command"] == {**original, "status": "processing"}


def test_garbage_between_two_commands_is_ignored(site: Site, listener: Listener) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    publish(site, FORMS[0].read_bytes())
    for garbage in (b"\xff{not json", b"[" * 100_000, b'{"id": 1}', b""):
        publish(site, garbage)
    publish(site, FORMS[1].read_bytes())
    wait_for(lambda: len(listener.results()) >= 2, "both results")
    assert {item["code"] for item in listener.results()} == {"unsupported"}
    answered = {item["command_id"]: item["command"] for item in listener.results()}
    assert list(answered.values()) == [{**json.loads(form.read_bytes()), "status": "processing"} for form in FORMS[:2]]


def test_oversized_message_between_two_commands_is_refused(site: Site, listener: Listener) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    publish(site, FORMS[0].read_bytes())
    publish(site, b" " * 262_100 + FORMS[0].read_bytes())
    publish(site, b"x" * 400_000)
    assert "at most 262144 are allowed" in wait_for(
        lambda: site.wait_online("web-01").get("last_error"), "the refusal in the status"
    )
    publish(site, FORMS[1].read_bytes())
    wait_for(lambda: len(listener.results()) >= 2, "both results")
    assert len(listener.results()) == 2


def test_retained_command_is_rejected(site: Site, listener: Listener) -> None:
    publish(site, FORMS[0].read_bytes(), "-r")
    site.start_agent("web-01")
    site.wait_online("web-01")
    wait_for(lambda: "etain" in str(site.wait_online("web-01").get("last_error")), "the refusal in the status")
    result = site.sent("web-01", "get-agent-configuration", "--wait", "30")["result"]
    assert [item["command_id"] for item in listener.results()] == [result["command_id"]]


def test_command_delivered_twice_runs_once(site: Site, listener: Listener) -> None:
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    notes = site.directory / "notes"
    form = {
        "document_id": "twice",
        "action": {"name": "note-once", "version": "5.0.0", "args": {"path": str(notes)}},
        "source": "Users/Services",
        "user": "me",
        "target": {"type": "agent", "id": "web-01"},
        "status": "pending",
    }
    publish(site, json.dumps(form).encode())
    wait_for(lambda: listener.results() and site.queue("web-01") == [], "the first to be deleted")
    publish(site, json.dumps(form).encode())
    wait_for(lambda: len(listener.results()) >= 2, "the repeat to be answered")
    assert len({item["digest"] for item in listener.results()}) == 1
    assert len(notes.read_text().splitlines()) == 1


def test_second_agent_on_a_state_directory_does_not_start(site: Site) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    argv = [sys.executable, "-m", "consumer", "run", "--agent", "web-02", "--broker", site.broker_url]
    second = site._start("second", [*argv, "--state", str(site.state("web-01"))])
    assert second.process.wait(20) == 4
    said = second.log.read_text()
    assert "Traceback" not in said
    assert "in use by process" in said
    assert str(site.state("web-01")) in said
