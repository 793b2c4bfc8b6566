"""A broker that is put back to an earlier moment, and brokers that are bridged: old news never wins."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Site
from tests.support.brokers import free_port, tuned_mosquitto
from tests.support.waiting import wait_for

SAVED_AT_ONCE = ("persistence true", "autosave_interval 1", "autosave_on_changes true")


class SavingBroker:
    """A Mosquitto that saves each change, so that its file can be put back."""

    def __init__(self, directory: Path, *settings: str) -> None:
        self.port = free_port()
        self._directory = directory
        directory.mkdir()
        self._settings = (*SAVED_AT_ONCE, f"persistence_location {directory}/", *settings)
        self._running = ExitStack()
        self.url = ""
        self.start()

    def start(self) -> None:
        self.url = self._running.enter_context(tuned_mosquitto(self._directory, *self._settings, port=self.port))

    def kill(self) -> None:
        self._running.close()

    def save(self, content: bytes) -> None:
        """Copy the file once it has this content."""
        saved = self._directory / "mosquitto.db"
        wait_for(lambda: saved.exists() and content in saved.read_bytes(), f"{content!r} to be saved")
        shutil.copy(saved, self._directory / "earlier.db")

    def put_back(self) -> None:
        """Replace the file of a killed broker by the copy, and start it."""
        shutil.copy(self._directory / "earlier.db", self._directory / "mosquitto.db")
        self.start()


@pytest.fixture
def saving(tmp_path: Path) -> Iterator[SavingBroker]:
    broker = SavingBroker(tmp_path / "broker")
    yield broker
    broker.kill()


@pytest.fixture
def site(saving: SavingBroker, tmp_path: Path) -> Iterator[Site]:
    site = Site(saving.url, tmp_path)
    site.start_server()
    yield site
    site.stop()


def agent_of(site: Site) -> Any:
    """Return the agent as `acm agents` shows it."""
    return next(row for row in site.acm("agents") if row["name"] == "web-01")


def connections_of(site: Site) -> int:
    assert site.server is not None
    return site.server.log.read_text().count("mqtt_connected")


def set_group(site: Site, group: str) -> None:
    assert site.result(site.enqueue("web-01", "set-group", {"groups": [group]}))["outcome"] == "success"
    wait_for(lambda: agent_of(site)["status"].get("groups") == [group], "the group in the status")


def lose_store_after_save(site: Site, saving: SavingBroker) -> Any:
    """Let the broker save the status of a store that the agent then loses; return the agent."""
    agent = site.start_agent("web-01", module="tests.acceptance.slow_agent")
    site.wait_online("web-01")
    set_group(site, "before")
    saving.save(b'"before"')
    lost = agent_of(site)["status"]["store_generation"]
    agent.stop()
    shutil.rmtree(site.state("web-01"))
    agent = site.start_agent("web-01", module="tests.acceptance.slow_agent")
    wait_for(lambda: agent_of(site)["status"]["store_generation"] != lost, "the server to know the new store")
    set_group(site, "after")
    return agent


def test_commands_that_run_are_not_abandoned_for_a_status_of_before(site: Site, saving: SavingBroker) -> None:
    lose_store_after_save(site, saving)
    notes = site.directory / "notes"
    sent = [site.enqueue("web-01", "note-once", {"path": str(notes), "hold_s": 60}) for _ in range(2)]
    wait_for(lambda: [site.show(name)["state"] for name in sent] == ["running", "accepted"], "both to be accepted")
    connections = connections_of(site)
    saving.kill()
    saving.put_back()
    wait_for(lambda: connections_of(site) > connections, "the server to be back")
    set_again = site.enqueue("web-01", "set-group", {"groups": ["last"]})
    assert [site.show(name)["state"] for name in sent] == ["running", "accepted"]
    assert site.acm("group", "list") == [{"name": "after", "agents": ["web-01"]}]
    for name in reversed(sent):
        site.acm("cancel", name)
    assert [site.result(name)["code"] for name in sent] == ["cancelled", "cancelled"]
    assert site.result(set_again)["outcome"] == "success"
    assert [site.show(name)["verdict_of_server"] for name in sent] == [None] * len(sent)
    assert notes.read_text().splitlines() == sent[:1]


def test_agent_that_is_away_is_not_online_by_a_status_of_before(site: Site, saving: SavingBroker) -> None:
    agent = lose_store_after_save(site, saving)
    agent.stop()
    wait_for(lambda: agent_of(site)["state"] == "offline", "the agent to be offline")
    notes = site.directory / "notes"
    sent = site.enqueue("web-01", "note-once", {"path": str(notes)})
    wait_for(lambda: site.show(sent)["state"] == "sent", "the command to be sent")
    seen_at, connections = agent_of(site)["seen_at"], connections_of(site)
    saving.kill()
    saving.put_back()
    wait_for(lambda: connections_of(site) > connections, "the server to be back")
    another = site.enqueue("web-01", "note-once", {"path": str(notes)})
    wait_for(lambda: site.show(another)["state"] == "sent", "the server to have worked since")
    shown = agent_of(site)
    assert (shown["state"], shown["seen_at"], shown["status"]["groups"]) == ("offline", seen_at, ["after"])
    assert site.show(sent)["state"] == "sent"
    site.start_agent("web-01", module="tests.acceptance.slow_agent")
    assert [site.result(name)["outcome"] for name in (sent, another)] == ["success", "success"]
    assert notes.read_text().splitlines() == [sent, another]


def test_server_and_agent_on_bridged_brokers(saving: SavingBroker, tmp_path: Path) -> None:
    """By the bridge of docs/brokers.md; the agent's broker is put back while a command runs."""
    document = (Path(__file__).parents[2] / "docs" / "brokers.md").read_text(encoding="utf-8")
    bridge = document.partition("```\nconnection to-site")[2].partition("```")[0]
    here = bridge.replace("site.example.org:8883", f"127.0.0.1:{saving.port}")
    near_server = SavingBroker(tmp_path / "server-side", f"connection to-site{here}restart_timeout 1")
    site = Site(near_server.url, tmp_path)
    try:
        site.start_server()
        site.broker_url = saving.url
        lose_store_after_save(site, saving)
        notes = site.directory / "notes"
        sent = site.enqueue("web-01", "note-once", {"path": str(notes), "hold_s": 60})
        wait_for(lambda: site.show(sent)["state"] == "running", "the command to run")
        saving.kill()
        saving.put_back()
        set_again = site.enqueue("web-01", "set-group", {"groups": ["last"]})
        site.acm("cancel", sent)
        assert site.result(sent)["code"] == "cancelled"
        assert site.result(set_again)["outcome"] == "success"
        assert site.show(sent)["verdict_of_server"] is None
        assert site.acm("group", "list") == [{"name": "last", "agents": ["web-01"]}]
    finally:
        site.stop()
        near_server.kill()
