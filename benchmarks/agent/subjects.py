"""The programs under measurement: `python -m benchmarks.agent.subjects NAME URL STATE COUNT`.

Each prints when it is ready, and starts at a line on stdin.
"""

import json
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
from diskcache import Cache
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from consumer.agent import Agent
from consumer.handler import Handler, Interruption, Result
from consumer.ports import BackgroundTask
from consumer.settings import AgentConfig, Secret

AGENT = "web-01"
SUBJECTS: dict[str, Callable[[str, Path, int], None]] = {}
_COMMAND, _ACK, _FEEDBACK = (f"acm/{AGENT}/{channel}" for channel in ("command", "ack", "feedback"))


def subject(run: Callable[[str, Path, int], None]) -> Callable[[str, Path, int], None]:
    SUBJECTS[run.__name__] = run
    return run


def wait_for_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


@dataclass(frozen=True)
class NoOp:
    """No parameters."""


class Measured(Agent):
    """The agent, which also reports at once that all commands are deleted: its status does so up to 2 s later."""

    count = 0
    turns = 0

    def _background_tasks(self) -> list[BackgroundTask]:
        return [*super()._background_tasks(), self]

    def next_due(self) -> float | None:
        self.turns += 1  # asked once in each
        return 0.0 if self._is_done() else None

    def step(self) -> None:
        if self._is_done():
            self.count = 0
            self._connection.publish(_FEEDBACK, b'{"kind": "empty"}')

    def _is_done(self) -> bool:
        last = self._store.last_sequence
        left = self._store.pending_count() + self._store.done_count()
        return not left and last is not None and last.number == self.count


def _run_agent(url: str, state: Path, count: int, *, accept_unsigned: bool) -> None:
    no_op = Handler("no-op", Interruption.RERUN, NoOp, lambda *_: Result("Done."))
    config = AgentConfig(
        agent=AGENT, broker=Secret(url), state=str(state), accept_unsigned=accept_unsigned, log_level="error"
    )
    agent = Measured(config, handlers=[no_op])
    agent.count = count
    wait_for_go()
    threading.Thread(target=_answer_questions, args=(agent,), daemon=True).start()
    agent.run()


def _answer_questions(agent: Measured) -> None:
    """Print the number of turns at each line on stdin."""
    while sys.stdin.readline():
        print(agent.turns, flush=True)


@subject
def ours(url: str, state: Path, count: int) -> None:
    """This project's agent, with a handler that does nothing."""
    _run_agent(url, state, count, accept_unsigned=True)


@subject
def ours_signed(url: str, state: Path, count: int) -> None:
    """The same agent, enrolled: it accepts only frames that are signed for it."""
    _run_agent(url, state, count, accept_unsigned=False)


@subject
def blocked(url: str, state: Path, count: int) -> None:
    """The agent, whose first command never ends: all others wait in its store."""
    never = threading.Event()

    def wait(*_: object) -> Result:
        never.wait()
        return Result("Done.")

    _run_handler(url, state, Handler("no-op", Interruption.RERUN, NoOp, wait))


@subject
def begun(url: str, state: Path, count: int) -> None:
    """The agent, which prints when its first command begins (monotonic seconds)."""
    began = threading.Event()

    def note(*_: object) -> Result:
        if not began.is_set():
            began.set()
            print(monotonic(), flush=True)
        return Result("Done.")

    _run_handler(url, state, Handler("no-op", Interruption.RERUN, NoOp, note))


def _run_handler(url: str, state: Path, handler: Handler[NoOp]) -> None:
    """Run the agent as it starts without a benchmark: nothing is prepared before `go`."""
    wait_for_go()
    config = AgentConfig(agent=AGENT, broker=Secret(url), state=str(state), accept_unsigned=True, log_level="error")
    Agent(config, handlers=[handler]).run()


@subject
def naive(url: str, state: Path, count: int) -> None:
    """paho and diskcache's push and pull with its defaults, one commit per step: the obvious way."""
    _naive(url, count, Cache(str(state)))


@subject
def naive_durable(url: str, state: Path, count: int) -> None:
    """The same with the one setting that makes it survive a power loss."""
    _naive(url, count, Cache(str(state), sqlite_synchronous=2))


def _naive(url: str, count: int, cache: Cache) -> None:
    work: queue.SimpleQueue[str] = queue.SimpleQueue()

    def on_message(client: Client, userdata: Any, message: Any) -> None:
        if message.topic == _COMMAND:
            cache.push(message.payload)
            work.put("command")
        else:
            for ack in _listed(json.loads(message.payload)):
                cache.delete(ack["command_id"])
                work.put("deleted")

    client = _connect(url, on_message)
    deleted = 0
    while True:
        if work.get() == "deleted":
            deleted += 1
            if deleted == count:
                client.publish(_FEEDBACK, b'{"kind": "empty"}', qos=1)
            continue
        _, payload = cache.pull()
        command = json.loads(payload)
        result = {"kind": "result", "command_id": command["id"], "digest": "x", "command": command, "message": "Done."}
        cache.set(command["id"], json.dumps(result).encode())
        client.publish(_FEEDBACK, json.dumps(result), qos=1)


@subject
def pass_through(url: str, state: Path, count: int) -> None:
    """A plain subscriber that stores nothing, does nothing and answers once, at the end."""
    seen = 0
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def on_message(client: Client, userdata: Any, message: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            client.publish(_FEEDBACK, b'{"kind": "empty"}', qos=1)

    _connect(url, on_message)
    ended.get()


@subject
def echo(url: str, state: Path, count: int) -> None:
    """A plain subscriber that sends each message back."""
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def on_message(client: Client, userdata: Any, message: Any) -> None:
        if message.topic != _COMMAND:
            return
        command = json.loads(message.payload)
        client.publish(_FEEDBACK, json.dumps({"kind": "result", "command_id": command["id"], "digest": "x"}), qos=1)

    _connect(url, on_message)
    ended.get()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _connect(url: str, on_message: Callable[..., None]) -> Client:
    host, _, port = url.removeprefix("mqtt://").partition(":")
    client = Client(CallbackAPIVersion.VERSION2, AGENT, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = on_message

    def on_connect(client: Client, *_: Any) -> None:
        client.subscribe([(_COMMAND, 1), (_ACK, 1)])

    client.on_connect = on_connect
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = 1000
    wait_for_go()
    client.connect(host, int(port), clean_start=False, properties=properties)
    client.loop_start()
    return client


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # stdout is for what is measured
    SUBJECTS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
