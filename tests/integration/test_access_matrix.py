"""Each identity against each topic and verb on a real Mosquitto, as the tables of docs/security.md say."""

import queue
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from broker.mqtt.address import TlsFiles
from tests.support.authority import TestAuthority
from tests.support.secured import SecuredSite
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
GRANTED = 1
END = b"end"
WITH_WILL = ReasonCode(PacketTypes.DISCONNECT, identifier=4)


def table_below(heading: str) -> list[dict[str, str]]:
    """Return the rows of the first table below a heading of docs/security.md, by the names of its columns."""
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    lines = text[text.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


ACCESS = table_below("### Topics")
CONNECTIONS = table_below("### Connections")


class Client:
    """A paho client that waits for the answer to all that it asks."""

    def __init__(self, port: int, client_id: str, tls: TlsFiles, *, will: str | None = None) -> None:
        self.codes: queue.SimpleQueue[tuple[int, list[int]]] = queue.SimpleQueue()
        self.received: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
        self.connack: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.ended = False
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
        self.paho.tls_set(str(tls.ca), str(tls.certificate), str(tls.key))
        self.paho.on_connect = lambda *values: self.connack.put(values[3].value)
        self.paho.on_disconnect = lambda *values: setattr(self, "ended", True)
        self.paho.on_publish = lambda *values: self.codes.put((values[2], [values[3].value]))
        self.paho.on_subscribe = lambda *values: self.codes.put((values[2], [code.value for code in values[3]]))
        self.paho.on_unsubscribe = self.paho.on_subscribe
        self.paho.on_message = lambda *values: self.received.put(values[2])
        if will is not None:
            self.paho.will_set(will, b"will", qos=1)
        self.paho.connect("127.0.0.1", port, clean_start=True)
        self.paho.loop_start()

    def subscribe(self, *filters: str) -> list[int]:
        return self._answer(self.paho.subscribe([(topic, mqtt.SubscribeOptions(qos=1)) for topic in filters])[1])

    def unsubscribe(self, *filters: str) -> None:
        self._answer(self.paho.unsubscribe(list(filters))[1])

    def publish(self, *topics: str, payload: bytes = b"x") -> dict[str, int]:
        """Publish on all topics at once; return the reason codes of the PUBACKs."""
        mids = {self.paho.publish(topic, payload, qos=1).mid: topic for topic in topics}
        answers = dict(self.codes.get(timeout=20) for _ in mids)
        return {topic: answers[mid][0] for mid, topic in mids.items()}

    def received_until_end(self) -> set[str]:
        topics = set()
        while (message := self.received.get(timeout=20)).payload != END:
            topics.add(message.topic)
        return topics

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()
        # Ends the cycle of references through the callbacks, so that paho closes its sockets now.
        for callback in ("on_connect", "on_disconnect", "on_publish", "on_subscribe", "on_unsubscribe", "on_message"):
            setattr(self.paho, callback, None)

    def _answer(self, mid: int | None) -> list[int]:
        answered, codes = self.codes.get(timeout=20)
        assert answered == mid
        return codes


class Matrix:
    """A running broker with its server, who may publish everything below `acm`."""

    def __init__(self, site: SecuredSite, directory: Path) -> None:
        self.site = site
        self.files = {"a": site.identity("a"), "b": site.identity("b"), "acm-server": site.server}
        self.revoked = site.identity("revoked")
        site.revoke(self.revoked)
        stranger = TestAuthority()
        stranger.write_identity(directory / "stranger", "a")
        self.stranger = TlsFiles(
            site.server.ca, *(directory / "stranger" / f"{it}.pem" for it in ("certificate", "key"))
        )

    @contextmanager
    def client(self, name: str, client_id: str | None = None, will: str | None = None) -> Iterator[Client]:
        client = Client(self.site.port, client_id or name, self.files[name], will=will)
        try:
            yield client
        finally:
            client.close()

    def alert(self, files: TlsFiles | None, version: ssl.TLSVersion) -> str:
        """Return the TLS alert that ends a handshake; fails when none does."""
        context = ssl.create_default_context(cafile=self.site.server.ca)
        context.maximum_version = version
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        plain = socket.create_connection(("127.0.0.1", self.site.port), timeout=20)
        with pytest.raises(ssl.SSLError) as caught, context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
            assert secured.recv(1) == b"", "the broker waits for a CONNECT"
        return str(caught.value.reason)


@pytest.fixture(scope="module")
def matrix(broker_kind: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    directory = tmp_path_factory.mktemp("matrix")
    matrix = Matrix(SecuredSite(directory), directory)
    with matrix.site.running(broker_kind):
        yield matrix


def expected(column: str) -> dict[str, str]:
    return {row["topic"].strip("`"): row[column] for row in ACCESS}


def single_topics() -> list[str]:
    return [topic for topic in expected("topic") if "#" not in topic]


def received(client: Client, server: Client, me: str, *filters: str) -> set[str]:
    """Subscribe, let the server publish on every topic, and return on which topics something came."""
    assert client.subscribe(*filters, f"acm/{me}/ack") == [GRANTED] * (len(filters) + 1)
    server.publish(*single_topics())
    server.publish(f"acm/{me}/ack", payload=END)
    topics = client.received_until_end()
    client.unsubscribe(*filters, f"acm/{me}/ack")
    return topics


def check_access(matrix: Matrix, client: Client, server: Client, name: str, me: str) -> None:
    """Try every cell of the identity's two columns."""
    publishes, receives = expected(f"{name} publishes"), expected(f"{name} receives")
    allowed = {topic for topic, cell in receives.items() if cell == "yes"}
    assert received(client, server, me, *single_topics()) == allowed
    assert (receives["acm/#"], receives["$SYS/#"]) == ("as above", "no")
    assert received(client, server, me, "acm/#") - {f"acm/{me}/ack"} == allowed - {f"acm/{me}/ack"}
    assert received(client, server, me, "$SYS/#") <= {f"acm/{me}/ack"}
    answered = {topic: f"`{code:#04x}`" for topic, code in client.publish(*single_topics()).items()}
    assert answered == {topic: publishes[topic] for topic in single_topics()}
    assert not client.ended


@pytest.mark.parametrize("agent", ["a", "b"])
def test_agent_has_access_to_its_own_topics_only(matrix: Matrix, agent: str) -> None:
    with matrix.client("acm-server") as server, matrix.client(agent) as client:
        server.subscribe("acm/#")  # else an allowed message is answered with 0x10, no matching subscribers
        check_access(matrix, client, server, agent, agent)


def test_server_has_access_to_all_topics_of_agents(matrix: Matrix) -> None:
    with matrix.client("acm-server") as server, matrix.client("a") as a, matrix.client("b") as b:
        a.subscribe("acm/#")
        b.subscribe("acm/#")
        check_access(matrix, server, server, "server", "a")


def test_agent_cannot_use_the_client_id_of_another(matrix: Matrix) -> None:
    with matrix.client("acm-server") as server, matrix.client("a") as a:
        with matrix.client("b", client_id="a") as b:
            assert (a.connack.get(timeout=20), b.connack.get(timeout=20)) == (0, 0)
            assert received(b, server, "b", "acm/#") - {"acm/b/ack"} == {
                f"acm/b/{channel}" for channel in ("command", "control", "blob-chunk")
            }
        assert received(a, server, "a", "acm/a/command") >= {"acm/a/command"}
        assert not a.ended


def test_last_will_on_a_topic_of_another_agent_is_dropped(matrix: Matrix) -> None:
    with matrix.client("acm-server") as server:
        server.subscribe("acm/#")
        for will in ("acm/b/status", "acm/a/status"):
            with matrix.client("a", will=will) as a:
                assert a.connack.get(timeout=20) == 0
                a.paho.disconnect(WITH_WILL)
                wait_for(lambda a=a: a.ended, "the end of the connection")  # type: ignore[misc]
        assert server.received.get(timeout=20).topic == "acm/a/status"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_rejected_client_gets_a_tls_alert(matrix: Matrix, version: ssl.TLSVersion) -> None:
    for files, row in ((matrix.revoked, 3), (None, 4), (matrix.stranger, 5)):
        alert = matrix.alert(files, version)
        words = alert.split("_ALERT_")[1].lower().replace("_", " ")
        assert f"`{words}`" in CONNECTIONS[row]["response"]
