"""A file from the operator's disk to an agent that reaches nothing but the broker, whatever dies on the way."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.contract.artifacts import blob_url
from broker.contract.codec import decode_blob_chunks, decode_blob_requests, encode
from broker.contract.messages import BlobChunk, BlobRequest
from broker.mqtt.connection import MqttConnection
from tests.acceptance.conftest import ROOT, Program, Site
from tests.support.fakes.mqtt5_broker import PUBACK
from tests.support.mqtt_proxy import Sender, mqtt_proxy
from tests.support.waiting import wait_for

SIZE = 3_000_000
HALF = SIZE // 2
AGENT = "web-01"


class Tap:
    """Reads along what agents ask for and what they get."""

    def __init__(self, url: str) -> None:
        self.requests: list[BlobRequest] = []
        self.chunks: list[tuple[str, BlobChunk]] = []
        topics = ["acm/+/blob-request", "acm/+/blob-chunk"]
        self.connection = MqttConnection(url, "tap", clean_start=True, session_expiry_s=0, subscriptions=topics)

    def listen(self) -> None:
        arrived = self.connection.drain(0.05)
        for delivery in arrived:
            if delivery.topic.endswith("blob-request"):
                self.requests += decode_blob_requests(delivery.payload)
            else:
                self.chunks += [(delivery.topic, chunk) for chunk in decode_blob_chunks(delivery.payload)]
        self.connection.acknowledge(arrived)

    def ask(self, agent: str, name: str) -> BlobChunk:
        """Ask as this agent would, for one byte at an offset at which it never asks itself; return the answer."""
        self.chunks.clear()
        self.connection.publish(f"acm/{agent}/blob-request", encode([BlobRequest(name, 1, 1)]))

        def answer() -> BlobChunk | None:
            self.listen()
            own = (chunk for topic, chunk in self.chunks if topic == f"acm/{agent}/blob-chunk" and chunk.offset == 1)
            return next(own, None)

        return wait_for(answer, f"an answer to {agent}")


@pytest.fixture
def tap(site: Site) -> Iterator[Tap]:
    tap = Tap(site.broker_url)
    with tap.connection as connection:
        assert connection.wait_connected(10)
        yield tap


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent-2.0.tar.gz"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


class Fetching:
    """An agent that has fetched half of a file and waits there until the test continues it."""

    def __init__(self, site: Site, file: Path) -> None:
        self.site = site
        self.copy = site.directory / "copy"
        self.file = file
        self.agent = start_agent(site)
        self.command_id = send(site, self.copy, "--file", f"artifact={file}", f"hold_at={HALF}", "--timeout", "100s")
        wait_for((site.directory / "holding").exists, "half of the file to be there")

    def go_on(self) -> None:
        (self.site.directory / "go_on").touch()

    def is_whole(self) -> bool:
        result = self.site.result(self.command_id, 90)
        return result["outcome"] == "success" and self.copy.read_bytes() == self.file.read_bytes()


def start_agent(site: Site) -> Program:
    agent = site.start_agent(AGENT, module="tests.acceptance.fetching_agent")
    site.wait_online(AGENT)
    return agent


def send(site: Site, to: Path, *arguments: str) -> str:
    return site.send(AGENT, "fetch-file", f"to={to}", *arguments)


def acm_blob(site: Site, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "broker", "blob", *arguments, "--ledger", site.ledger]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_file_arrives_whole_and_only_at_the_agent_of_the_command(site: Site, tap: Tap, file: Path) -> None:
    fetching = Fetching(site, file)
    (blob,) = site.acm("blob", "list")
    assert (blob["size"], blob["file_name"]) == (SIZE, file.name)
    refused = tap.ask("web-02", blob["sha256"])
    assert refused.data is None
    assert refused.error == f"No open command to web-02 refers to the blob {blob['sha256']}."
    assert tap.ask(AGENT, blob["sha256"]).data == file.read_bytes()[1:2]
    assert "is needed by the open command" in acm_blob(site, "rm", blob["url"]).stderr
    fetching.go_on()
    assert fetching.is_whole()
    assert list((site.state(AGENT) / "downloads").iterdir()) == []
    assert tap.ask(AGENT, blob["sha256"]).data is None
    assert acm_blob(site, "rm", blob["url"]).returncode == 0
    assert site.acm("blob", "list") == []


def test_agent_killed_during_a_download_resumes_it(site: Site, tap: Tap, file: Path) -> None:
    fetching = Fetching(site, file)
    fetching.agent.kill()
    tap.listen()
    assert tap.requests[0].offset == 0
    tap.requests.clear()
    (part,) = (site.state(AGENT) / "downloads").iterdir()
    have = part.stat().st_size
    assert HALF <= have < SIZE
    fetching.go_on()
    start_agent(site)
    assert fetching.is_whole()
    tap.listen()
    assert min(request.offset for request in tap.requests) == have


def test_download_survives_a_killed_server(site: Site, file: Path) -> None:
    fetching = Fetching(site, file)
    assert site.server is not None
    site.server.kill()
    fetching.go_on()
    site.start_server()
    assert fetching.is_whole()


def test_download_survives_lost_pubacks_of_the_server(broker: Any, tmp_path: Path, file: Path) -> None:
    file.write_bytes(3 * file.read_bytes())  # many more pieces than may be unconfirmed
    with mqtt_proxy(broker.port) as proxy:
        site = Site(proxy.url, tmp_path)
        try:
            site.start_server(module="tests.faults.hasty")
            fetching = Fetching(site, file)
            proxy.withhold("acm-server", Sender.BROKER, PUBACK)
            fetching.go_on()
            wait_for(lambda: proxy.count >= 8, "so many that the server sends no more chunks")
            proxy.pass_all()
            assert fetching.is_whole()
        finally:
            site.stop()


@pytest.mark.parametrize("fault", ["restart", "lose_data"])
def test_download_survives_a_lost_broker(site: Site, broker: Any, file: Path, fault: str) -> None:
    fetching = Fetching(site, file)
    getattr(broker, fault)()
    fetching.go_on()
    assert fetching.is_whole()


def test_command_with_an_unknown_blob_fails(site: Site, file: Path) -> None:
    artifacts = [acm_blob(site, "put", str(file)).stdout for _ in range(2)]
    assert artifacts[0] == artifacts[1]
    assert len(site.acm("blob", "list")) == 1
    start_agent(site)
    copy = site.directory / "copy"
    assert site.result(send(site, copy, f"artifact={artifacts[0]}"))["outcome"] == "success"
    assert copy.read_bytes() == file.read_bytes()
    name = "0" * 64
    artifact = json.dumps({"url": blob_url(name), "sha256": name, "size": 5})
    result = site.result(send(site, copy, f"artifact={artifact}"))
    assert result["code"] == "failed"
    assert f"The server has no blob {name}" in result["message"]
    assert not copy.exists()
