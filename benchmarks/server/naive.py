"""The obvious server: paho and sqlite3, durable, with one commit and one message for each thing.

`python -m benchmarks.server.naive URL LEDGER`
"""

import json
import queue
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.measuring.commands import command_id

__all__ = ["fill", "open_ledger"]

_POLL_S = 0.05
_PER_LOOK = 100
_TABLES = """
CREATE TABLE IF NOT EXISTS agents (name TEXT PRIMARY KEY, status TEXT);
CREATE TABLE IF NOT EXISTS commands
    (id TEXT PRIMARY KEY, agent TEXT, number INTEGER, body TEXT, state TEXT, result TEXT);
CREATE INDEX IF NOT EXISTS due ON commands (agent, number) WHERE state = 'queued';
"""


def open_ledger(path: Path) -> sqlite3.Connection:
    """Open the ledger of the naive server."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = full")
    connection.executescript(_TABLES)
    return connection


def fill(path: Path, agents: Sequence[str], each: int) -> None:
    """Queue `each` commands for each agent, in one transaction."""
    connection = open_ledger(path)
    connection.execute("BEGIN")
    for number in range(1, each + 1):
        rows = [(command_id(agent, number), agent, number, _body(agent, number), "queued") for agent in agents]
        connection.executemany("INSERT INTO commands VALUES (?, ?, ?, ?, ?, NULL)", rows)
    connection.execute("COMMIT")
    connection.close()


def _body(agent: str, number: int) -> str:
    return json.dumps(
        {
            "id": command_id(agent, number),
            "type": "no-op",
            "parameters": {},
            "origin": {"name": "bench", "module": "benchmarks"},
            "created_at": "2026-01-01T00:00:00Z",
            "sequence": {"epoch": 1, "number": number},
        }
    )


class NaiveServer:
    """Sends what is queued, stores what agents say, and acks results."""

    def __init__(self, ledger: sqlite3.Connection, client: Client) -> None:
        self._ledger = ledger
        self._client = client
        self._arrived: queue.SimpleQueue[MQTTMessage] = queue.SimpleQueue()
        client.on_message = lambda _client, _data, message: self._arrived.put(message)

    def run(self) -> None:
        """Work until the process ends."""
        while True:
            self._receive()
            self._send()

    def _receive(self) -> None:
        timeout = _POLL_S
        for _ in range(_PER_LOOK):
            try:
                message = self._arrived.get(timeout=timeout)
            except queue.Empty:
                return
            timeout = 0.0001
            _, agent, channel = message.topic.split("/")
            if channel == "status":
                self._ledger.execute("REPLACE INTO agents VALUES (?, ?)", (agent, message.payload.decode()))
            elif channel == "feedback":
                self._record(agent, json.loads(message.payload))
            self._client.ack(message.mid, message.qos)

    def _record(self, agent: str, content: Any) -> None:
        for item in content if isinstance(content, list) else [content]:
            if item["kind"] != "result":
                continue
            update = "UPDATE commands SET state = 'completed', result = ? WHERE id = ? AND state != 'completed'"
            self._ledger.execute(update, (json.dumps(item), item["command_id"]))
            ack = {"command_id": item["command_id"], "digest": item["digest"]}
            self._client.publish(f"acm/{agent}/ack", json.dumps(ack), qos=1)

    def _send(self) -> None:
        due = "SELECT id, agent, body FROM commands WHERE state = 'queued' ORDER BY agent, number LIMIT ?"
        for name, agent, body in self._ledger.execute(due, (_PER_LOOK,)).fetchall():
            self._ledger.execute("UPDATE commands SET state = 'sent' WHERE id = ?", (name,))
            self._client.publish(f"acm/{agent}/command", body, qos=1)


def main() -> None:
    """Run until TERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host, _, port = sys.argv[1].removeprefix("mqtt://").partition(":")
    version = CallbackAPIVersion.VERSION2
    client = Client(version, "acm-server", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
    client.on_connect = lambda client, *_: client.subscribe([("acm/+/feedback", 1), ("acm/+/status", 1)])
    client.max_queued_messages_set(0)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = 1000
    server = NaiveServer(open_ledger(Path(sys.argv[2])), client)
    client.connect(host, int(port), clean_start=False, properties=properties)
    client.loop_start()
    server.run()


if __name__ == "__main__":
    main()
