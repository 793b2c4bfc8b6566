"""One simulated agent: what it keeps, and what it answers, without its socket."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic

from benchmarks.fleet import mqtt
from benchmarks.fleet.frames import Arrived, Identity, Number, acks_in, commands_in, no_op, requests_in
from benchmarks.measuring.commands import command_id
from broker.contract.limits import MAX_NUMBER
from consumer.engine.resend_delay import ResendDelay

__all__ = ["Sending", "SimulatedAgent", "Tally"]

_MAX_RESULTS_IN_FRAME = 200
_MAX_IN_FLIGHT = 1000
_FIRST_WAIT_S = 2.0
_WINDOW = 1000  # results that an agent sends again at most, until they are acked


@dataclass
class Tally:
    """What all agents of a fleet have seen. `frames` came from the server.

    `acks` has the time of each result's ack and the seconds since its command was created.
    """

    commands: int = 0
    commands_again: int = 0
    results: int = 0
    results_again: int = 0
    statuses: int = 0
    gaps: int = 0
    frames: int = 0
    acks: list[tuple[float, float]] = field(default_factory=list)

    def clear(self) -> None:
        """Count from zero."""
        vars(self).update(vars(Tally()))


class Sending:
    """Results that were sent together, by the ids of their commands, and when they are sent again (monotonic seconds).

    The rules are those of the agent (consumer/engine/outbox.py): waits that grow, and what the last ack has said.
    """

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self._wait_s = _FIRST_WAIT_S / 2
        self._sent_at = self._due = 0.0
        self.note_sent()

    def due(self, delay: ResendDelay) -> float:
        """Return when it is due."""
        return max(self._due, delay.not_before(self._sent_at))

    def note_ack(self, delay: ResendDelay) -> None:
        """Note that one of its results was acked now."""
        delay.note_ack(self._sent_at, monotonic(), is_clear=self._wait_s == _FIRST_WAIT_S)

    def note_sent(self) -> None:
        """Note that it was sent now."""
        self._wait_s = min(self._wait_s * 2, 300.0)
        self._sent_at = monotonic()
        self._due = self._sent_at + self._wait_s * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class _Waiting:
    """A result that waits for its ack, when its command was created (UNIX time), and how it was sent."""

    result: bytes
    created_at: float
    sending: Sending


class SimulatedAgent:
    """Stores nothing, runs each command at once, and repeats its result until its ack arrives.

    It returns the packets to send. `later` is called with what was sent and may have to be sent again; `changed` when
    counters in its status have moved. A new epoch is in a status at once, as with a real agent.
    """

    def __init__(
        self,
        name: str,
        enrolment: tuple[str, int] | None,
        tally: Tally,
        later: Callable[["SimulatedAgent", Sending], None],
        changed: Callable[["SimulatedAgent"], None],
    ) -> None:
        self.name = name
        self.subscribed = False
        self.status_planned = False
        self.waiting: dict[str, _Waiting] = {}
        self.delay = ResendDelay()
        self._identity = Identity(name, enrolment)
        self._tally = tally
        self._later, self._changed = later, changed
        self._last = Number(0, 0)
        self._attempt = self._statuses = 0
        self._answers: str | None = None
        self._mid = 0
        self._in_flight: set[int] = set()
        self._queued: list[tuple[tuple[int, bytes], bytes]] = []
        self._stored: deque[list[Arrived]] = deque()
        self._to_feedback = mqtt.publisher(f"acm/{name}/feedback")
        self._to_status = mqtt.publisher(f"acm/{name}/status", retain=True)

    def connect(self) -> bytes:
        """Return the CONNECT of a new attempt."""
        self._attempt += 1
        self.subscribed = False
        self.delay = ResendDelay()
        self._in_flight, self._queued = set(), []
        will = self._status(online=False, number=MAX_NUMBER)
        return mqtt.connect(self.name, f"acm/{self.name}/status", will)

    def receive(self, first: int, body: bytes) -> bytes:
        """Return the answer to a packet."""
        kind = first >> 4
        if kind == mqtt.PUBLISH:
            return self._receive_message(body)
        if kind == mqtt.PUBACK:
            self._in_flight.discard(int.from_bytes(body[:2], "big"))
            return self._send(*self._queued.pop(0)) if self._queued else b""
        if kind == mqtt.CONNACK:
            assert body[1] == 0, f"the broker refused {self.name}: {body[1]:#x}"
            channels = ("command", "control", "ack")
            return mqtt.subscribe([f"acm/{self.name}/{channel}" for channel in channels], self._next_mid())
        self.subscribed |= kind == mqtt.SUBACK
        return b""

    def status(self) -> bytes:
        """Return the status."""
        self._statuses += 1
        self._tally.statuses += 1
        return self._send(self._to_status, self._status(online=True, number=self._statuses))

    def resend(self) -> bytes:
        """Return the first results that wait for their acks, as after a new connection."""
        return self._send_again([*islice(self.waiting, _WINDOW)])

    def resend_due(self, sending: Sending) -> bytes:
        """Return those of its results that still wait for their acks, if they are due and in the window."""
        if not self.subscribed or monotonic() < sending.due(self.delay):
            return b""
        if sending.ids[0] not in set(islice(self.waiting, _WINDOW)):
            return b""
        sending.note_sent()
        return self._send_again(sending.ids)

    def believe(self, epoch: int, last: int) -> None:
        """Be an agent that has accepted commands up to the number `last`."""
        self._last = Number(epoch, last)

    def end(self, numbers: Iterable[int]) -> bytes:
        """Return the results of commands with these numbers, which the ledger believes accepted.

        As results that were stored before, they are sent as far as the window goes, others when acks arrive.
        """
        epoch = self._last.epoch
        commands = [no_op(command_id(self.name, number), epoch, number) for number in numbers]
        self._stored.append(commands)
        return self._send_stored()

    def _send_stored(self) -> bytes:
        sent = b""
        while self._stored and len(self.waiting) < _WINDOW:
            sent += self._send_results(self._end(self._stored.popleft()))
        return sent

    def _end(self, commands: Sequence[Arrived]) -> list[bytes]:
        """End commands; return their results, which are sent now."""
        if not commands:
            return []
        sending = Sending([command.id for command in commands])
        for command in commands:
            created_at = command.created_at.timestamp()
            self.waiting[command.id] = _Waiting(self._identity.result(command), created_at, sending)
        self._tally.results += len(commands)
        self._later(self, sending)
        return [self.waiting[command.id].result for command in commands]

    def _receive_message(self, body: bytes) -> bytes:
        topic, mid, payload = mqtt.published(body)
        self._tally.frames += 1
        if topic.endswith("/ack"):
            answer = self._take_acks(payload)
        elif topic.endswith("/command"):
            answer = self._take_commands(commands_in(payload))
        else:
            answer = self._take_requests(payload)
        return answer + mqtt.puback(mid)

    def _take_acks(self, payload: bytes) -> bytes:
        now = time.time()
        for ack in acks_in(payload):
            if (ended := self.waiting.pop(ack.command_id, None)) is not None:
                self._tally.acks.append((now, now - ended.created_at))
                ended.sending.note_ack(self.delay)
        self._changed(self)
        return self._send_stored()

    def _take_commands(self, commands: list[Arrived]) -> bytes:
        results: list[bytes] = []
        new: list[Arrived] = []
        epoch = self._last.epoch
        for command in commands:
            sequence = command.sequence
            if self._is_next(sequence):
                self._last = sequence
                new.append(command)
            elif sequence.epoch == self._last.epoch and sequence.number > self._last.number:
                self._tally.gaps += 1
                gap = self._identity.gap(self._last.number + 1, sequence.epoch, sequence.number)
                return self._send_results(results + self._end(new)) + self._send(self._to_feedback, gap)
            elif sequence.epoch == self._last.epoch:
                results.append(self._repeated(command))
        self._tally.commands += len(new)
        sent = self._send_results(results + self._end(new))
        if new:
            self._changed(self)
        return sent if self._last.epoch == epoch else sent + self.status()

    def _is_next(self, sequence: Number) -> bool:
        if sequence.epoch > self._last.epoch:
            return sequence.number == 1
        return sequence.epoch == self._last.epoch and sequence.number == self._last.number + 1

    def _repeated(self, command: Arrived) -> bytes:
        self._tally.commands_again += 1
        self._tally.results_again += 1
        kept = self.waiting.get(command.id)
        return kept.result if kept else self._identity.plain_result(command.id)

    def _take_requests(self, payload: bytes) -> bytes:
        for request in requests_in(payload):
            if request.action == "report":
                self._answers = request.command_id
                return self.status()
        return b""

    def _status(self, *, online: bool, number: int) -> bytes:
        waiting, order = len(self.waiting), (self._attempt, number)
        return self._identity.status(
            online=online, order=order, last=self._last, waiting=waiting, answers=self._answers
        )

    def _send_again(self, ids: list[str]) -> bytes:
        self._tally.results_again += len(ids)
        return self._send_results([self.waiting[name].result for name in ids])

    def _send_results(self, results: list[bytes]) -> bytes:
        sent = b""
        for first in range(0, len(results), _MAX_RESULTS_IN_FRAME):
            some = results[first : first + _MAX_RESULTS_IN_FRAME]
            frame = some[0] if len(some) == 1 else b"[" + b",".join(some) + b"]"
            sent += self._send(self._to_feedback, frame)
        return sent

    def _send(self, to: tuple[int, bytes], payload: bytes) -> bytes:
        if len(self._in_flight) >= _MAX_IN_FLIGHT:  # the broker's Receive Maximum
            self._queued.append((to, payload))
            return b""
        mid = self._next_mid()
        self._in_flight.add(mid)
        return mqtt.publish(to, mid, payload)

    def _next_mid(self) -> int:
        self._mid = self._mid % 65535 + 1
        return self._mid
