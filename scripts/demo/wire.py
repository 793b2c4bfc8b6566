"""The wire of the demonstration: a listener that opens signed messages, and clients that publish any message."""

import json
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from rich.table import Table

from broker.contract.dsse import SignatureError, payload_type, read_body, read_envelope, read_public_key
from broker.contract.topics import Channel
from broker.mqtt.address import TlsFiles
from broker.mqtt.connection import MqttConnection
from broker.mqtt.delivery import Delivery
from broker.signing.key_store import SigningKeyStore
from scripts.demo.installation import LISTENER, Installation
from scripts.demo.processes import console, failed

_PUBACK_TIMEOUT_S = 20.0
_FROM_SERVER = frozenset({"command", "control", "ack"})


@dataclass(frozen=True)
class Hop:
    """One message on the wire, opened if it was signed. `seal` names signer and recipient, `payload` is as sent."""

    moment: float
    agent: str
    channel: str
    message: dict[str, Any]
    seal: str
    payload: bytes

    @property
    def command_id(self) -> Any:
        return self.message.get("command_id") or self.message.get("id")


class Hops:
    """Subscribes to all topics and records the messages."""

    def __init__(self, installation: Installation) -> None:
        self.seen: list[Hop] = []
        self._keys = SigningKeyStore(installation.signing_keys)
        self._connection = MqttConnection(
            installation.broker,
            client_id=LISTENER,
            clean_start=True,
            session_expiry_s=0,
            subscriptions=["acm/#"],
            tls=installation.identity(LISTENER),
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        while not self._ended.is_set():
            arrived = self._connection.drain(0.2)
            for delivery in arrived:
                if delivery.payload and not delivery.topic.endswith(("/blob-chunk", "/blob-request")):
                    self._record(delivery)
            self._connection.acknowledge(arrived)

    def _record(self, delivery: Delivery) -> None:
        _, agent, channel = delivery.topic.split("/")
        frame, seal = self._opened(channel, delivery.payload)
        messages = json.loads(frame)
        for message in messages if isinstance(messages, list) else [messages]:
            self.seen.append(Hop(time.monotonic(), agent, channel, message, seal, delivery.payload))

    def _opened(self, channel: str, payload: bytes) -> tuple[bytes, str]:
        envelope = read_envelope(payload)
        if envelope is None:
            return payload, ""
        names = [signature.keyid for signature in envelope.signatures]
        keys = [read_public_key(entry.public) for entry in self._keys.entries]
        try:
            content, _ = envelope.verify(payload_type(Channel(channel)), keys)
            scope, frame = read_body(content)
        except SignatureError:
            return json.dumps({"message": "an envelope"}).encode(), "signed by a key that is not the server's"
        return frame, f"signed by {scope.issuer}, {_keys(names)}, for {scope.audience}"

    def __enter__(self) -> "Hops":
        self._connection.start()
        if not self._connection.wait_connected(20):
            raise failed(f"the listener has no connection: {self._connection.last_error}")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.stop()

    def of(self, command_id: str, agent: str) -> list[Hop]:
        return [hop for hop in self.seen if (hop.agent, hop.command_id) == (agent, command_id)]

    def frame(self, command_id: str, agent: str) -> bytes:
        """Return the frame that carried this command, as it was sent."""
        return next(hop.payload for hop in self.of(command_id, agent) if hop.channel == "command")

    def results(self, command_id: str, agent: str) -> list[dict[str, Any]]:
        """Return the results that this agent has sent for this command, including repeats."""
        messages = [hop.message for hop in self.of(command_id, agent) if hop.channel == "feedback"]
        return [message for message in messages if message.get("status") == "completed"]


def _keys(names: list[str]) -> str:
    return f"key{'s' if len(names) > 1 else ''} {' and '.join(name[:8] for name in names)}"


def show_hops(hops: list[Hop]) -> None:
    table = Table("ms", "direction", "topic", "content", box=None, padding=(0, 2), header_style="dim")
    for hop in hops:
        message = hop.message
        content = message.get("message") or message.get("type") or f"digest {message.get('digest', '')[:12]}…"
        if message.get("kind"):
            content = f"[bold]{message['kind']}[/bold]  {content}"
        if hop.seal:
            content += f"\n[cyan]{hop.seal}[/cyan]"
        direction = "server ──▶ agent " if hop.channel in _FROM_SERVER else "server ◀── agent "
        table.add_row(f"{(hop.moment - hops[0].moment) * 1000:6.1f}", direction, hop.channel, content)
    console.print(table)


def publish(port: int, identity: TlsFiles, topic: str, payload: bytes) -> ReasonCode:
    """Publish one message at QoS 1 under a certificate; return the reason code of the broker's PUBACK."""
    answers: queue.SimpleQueue[ReasonCode] = queue.SimpleQueue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.tls_set(str(identity.ca), str(identity.certificate), str(identity.key))
    client.on_publish = lambda *values: answers.put(values[3])
    client.connect("localhost", port, clean_start=True)
    client.loop_start()
    try:
        client.publish(topic, payload, qos=1)
        return answers.get(timeout=_PUBACK_TIMEOUT_S)
    except queue.Empty:
        raise failed(f"the broker sent no PUBACK for a message on {topic}.") from None
    finally:
        client.disconnect()
        client.loop_stop()
