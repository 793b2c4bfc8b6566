"""The row about the agent's core alone: fed directly, without a connection and its threads."""

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic, process_time

from benchmarks.agent.driver import ACKS_IN_FRAME, TIMEOUT_S, command
from benchmarks.agent.options import Options
from benchmarks.agent.subjects import AGENT, NoOp
from benchmarks.measuring.report import Row
from broker.contract.topics import Channel, Topics
from broker.mqtt.delivery import Delivery
from consumer.comms.client import AgentCommsClient
from consumer.engine.core import AgentCore, AgentDependencies, HandlerRuntime
from consumer.engine.readiness import Readiness
from consumer.engine.round_trip import RoundTrip
from consumer.engine.status import StatusBuilder
from consumer.handler import Handler, Interruption, Result
from consumer.services import NoService
from consumer.settings import AgentConfig, Secret
from consumer.store.opening import open_store
from consumer.system.clock import SystemClock
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import NoTrust

__all__ = ["core"]

_COMMANDS = 10_000
_IN_A_TURN = (50, 1_000)  # while it keeps up, and as many as a broker has in flight


def core(options: Options) -> Row:
    """Processor time of a command, from its arrival to its deletion; one command a message."""
    count = options.scaled(_COMMANDS)
    taken: dict[int, list[float]] = {a_turn: [] for a_turn in _IN_A_TURN}
    for _ in range(options.rounds):
        for a_turn, values in taken.items():
            values.append(_command_us(count, a_turn))
    row = Row(f"the agent's core, {count:,} commands")
    row.figures = {
        f"{a_turn:,} commands a turn: CPU, µs a command": statistics.median(values) for a_turn, values in taken.items()
    }
    return row


class _NoDeparture:
    holds = False
    refusal = None


class _Wire:
    """A connection without a broker: keeps the results that were published."""

    def __init__(self) -> None:
        self.waiting: list[Delivery] = []
        self.published: list[bytes] = []
        self._mid = 0

    def put(self, channel: Channel, payload: bytes) -> None:
        self._mid = self._mid % 65_535 + 1
        self.waiting.append(Delivery(f"acm/{AGENT}/{channel}", payload, False, False, self._mid, 1))

    def drain(self, timeout_s: float) -> list[Delivery]:
        taken, self.waiting = self.waiting, []
        return taken

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Send nothing."""

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: object = None) -> bool:
        if topic.endswith("feedback"):
            self.published.append(payload)
        return True

    def take_results(self) -> list[dict[str, str]]:
        """Return the results that were published since the last call."""
        frames, self.published = [json.loads(payload) for payload in self.published], []
        items = [item for said in frames for item in (said if isinstance(said, list) else [said])]
        return [item for item in items if item["kind"] == "result"]

    def max_payload_bytes(self, topic: str) -> int:
        return 1 << 18

    filled_payload_bytes = max_payload_bytes


class _Agent:
    """An agent's core on a store in `state`. `cpu_s` is the processor time of its turns and its handler."""

    def __init__(self, state: Path) -> None:
        clock, self._wire = SystemClock(), _Wire()
        self._work: list[Callable[[], None]] = []
        self._to_ack: list[dict[str, str]] = []
        config = AgentConfig(agent=AGENT, broker=Secret("mqtt://x"), state=str(state), accept_unsigned=True)
        self.store = open_store(state, now=clock.now)
        self._comms = AgentCommsClient(self._wire, AGENT, Topics(), clock.monotonic)
        parts = AgentDependencies(
            self.store,
            self._comms,
            clock,
            TrustedClock(clock, None),
            NoTrust(),
            _NoDeparture(),
            Readiness(lambda: None, RoundTrip(AGENT, self.store.store_generation, "i", clock)),
        )
        status = StatusBuilder(config, self.store, clock, incarnation="i", supported_types=("no-op",))
        no_op = Handler("no-op", Interruption.RERUN, NoOp, lambda *_: Result("Done."))
        runtime = HandlerRuntime(NoService(), self._work.append)
        self._core = AgentCore(config, parts, runtime, status, {"no-op": no_op}, incarnation="i")
        self._core.recover()
        self._core.connected()
        self.cpu_s = 0.0

    def send(self, numbers: range) -> None:
        for number in numbers:
            self._wire.put(Channel.COMMAND, command(number))

    def ack(self) -> None:
        """Ack results that have arrived, as one frame."""
        self._to_ack += self._wire.take_results()
        acked, self._to_ack = self._to_ack[:ACKS_IN_FRAME], self._to_ack[ACKS_IN_FRAME:]
        if acked:
            acks = [{"command_id": it["command_id"], "digest": it["digest"]} for it in acked]
            self._wire.put(Channel.ACK, json.dumps(acks).encode())

    def turn(self) -> None:
        began = process_time()
        self._core.step(self._comms.receive(0.0))
        while self._work:
            self._work.pop()()
        self._core.wait_s()
        self.cpu_s += process_time() - began


def _command_us(count: int, a_turn: int) -> float:
    with tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        agent = _Agent(Path(directory) / "state")
        with closing(agent.store):
            sent, end = 0, monotonic() + TIMEOUT_S
            while sent < count or agent.store.pending_count() + agent.store.done_count():
                if monotonic() > end:
                    raise TimeoutError("The core has not deleted all commands in time.")
                agent.send(range(sent + 1, min(sent + a_turn, count) + 1))
                sent = min(sent + a_turn, count)
                agent.ack()
                agent.turn()
        return agent.cpu_s / count * 1e6
