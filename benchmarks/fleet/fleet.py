"""Many simulated agents in one process, on one epoll: see `benchmarks.fleet.__main__` for how it is driven."""

import contextlib
import heapq
import itertools
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from time import monotonic

from benchmarks.fleet import mqtt
from benchmarks.fleet.agent import Sending, SimulatedAgent, Tally

__all__ = ["Fleet"]

_MAX_CONNECTING = 64
_RETRY_S = 0.2
_READ_BYTES = 1 << 18
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # no TIME_WAIT: ten thousand of them would use up the ports


class _Line:
    """One agent's connection."""

    def __init__(self, agent: SimulatedAgent) -> None:
        self.agent = agent
        self.socket: socket.socket | None = None
        self.rest = b""
        self.unsent = b""


class Fleet:
    """Connects the agents, and connects them again when they lose the broker."""

    def __init__(
        self, broker: tuple[str, int], names: list[str], enrolments: dict[str, tuple[str, int]], status_pause_s: float
    ) -> None:
        self.tally = Tally()
        self.on_all_connected: Callable[[float], None] = lambda _: None
        self._broker = broker
        self._status_pause_s = status_pause_s
        self._sends_status = True
        self._lines = {
            name: _Line(SimulatedAgent(name, enrolments.get(name), self.tally, self._send_again_later, self._changed))
            for name in names
        }
        self._poll = select.epoll()
        self._by_fd: dict[int, _Line] = {}
        self._others: dict[int, Callable[[], None]] = {}
        self._to_connect: deque[_Line] = deque()
        self._connecting: set[str] = set()
        self._connected = 0
        self._retries = False
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    @property
    def agents(self) -> list[SimulatedAgent]:
        """The agents, in order of name."""
        return [line.agent for line in self._lines.values()]

    def connect(self, *, statuses: bool) -> None:
        """Connect all agents; each publishes its status then if `statuses`."""
        self._sends_status = statuses
        self._to_connect.extend(self._lines.values())
        self._connect_some()

    def publish_statuses(self) -> None:
        """Publish the status of all agents."""
        self._sends_status = True
        for line in self._lines.values():
            self._write(line, line.agent.status())

    def write(self, agent: SimulatedAgent, data: bytes) -> None:
        """Send packets of an agent."""
        self._write(self._lines[agent.name], data)

    def watch(self, fd: int, readable: Callable[[], None]) -> None:
        """Call `readable` when a file descriptor is."""
        self._others[fd] = readable
        self._poll.register(fd, select.EPOLLIN)

    def at(self, moment: float, do: Callable[[], None]) -> None:
        """Call `do` at this time (monotonic)."""
        heapq.heappush(self._timers, (moment, next(self._count), do))

    def run_once(self) -> None:
        """Wait for something to happen, at most a second, and handle it."""
        wait = min(1.0, max(0.0, self._timers[0][0] - monotonic())) if self._timers else 1.0
        for fd, events in self._poll.poll(wait):
            line = self._by_fd.get(fd)
            if line is not None:
                self._handle(line, events)
            elif fd in self._others:
                self._others[fd]()
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        """Drop all connections, as a machine does that loses its power."""
        for line in self._by_fd.values():
            assert line.socket
            line.socket.close()

    def _connect_some(self) -> None:
        while self._to_connect and len(self._connecting) < _MAX_CONNECTING:
            line = self._to_connect.popleft()
            line.socket = socket.socket()
            line.socket.setblocking(False)
            line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            self._connecting.add(line.agent.name)
            line.socket.connect_ex(self._broker)
            line.rest, line.unsent = b"", line.agent.connect()
            self._by_fd[line.socket.fileno()] = line
            self._poll.register(line.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _handle(self, line: _Line, events: int) -> None:
        if events & select.EPOLLIN:
            self._read(line)
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            self._lose(line)
        if events & select.EPOLLOUT and line.socket is not None:
            self._flush(line)

    def _read(self, line: _Line) -> None:
        assert line.socket
        try:
            data = line.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(line)
            return
        found, line.rest = mqtt.packets(line.rest + data)
        agent = line.agent
        was_subscribed = agent.subscribed
        answer = b"".join([agent.receive(first, body) for first, body in found])
        self._write(line, answer)
        if agent.subscribed and not was_subscribed:
            self._joined(line)

    def _joined(self, line: _Line) -> None:
        self._connecting.discard(line.agent.name)
        self._connected += 1
        if self._sends_status:
            self._write(line, line.agent.status())
        if line.agent.waiting:
            self._write(line, line.agent.resend())
        if self._connected == len(self._lines):
            self.on_all_connected(monotonic())
        self._connect_some()

    def _write(self, line: _Line, data: bytes) -> None:
        if not data or line.socket is None:
            return
        if not line.unsent:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                data = data[line.socket.send(data) :]
        if data:
            if not line.unsent:
                self._poll.modify(line.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
            line.unsent += data

    def _flush(self, line: _Line) -> None:
        assert line.socket
        with contextlib.suppress(BlockingIOError, ConnectionError):
            line.unsent = line.unsent[line.socket.send(line.unsent) :]
            if not line.unsent:
                self._poll.modify(line.socket.fileno(), select.EPOLLIN)

    def _lose(self, line: _Line) -> None:
        assert line.socket
        self._poll.unregister(line.socket.fileno())
        del self._by_fd[line.socket.fileno()]
        line.socket.close()
        line.socket = None
        self._connected -= line.agent.subscribed
        line.agent.subscribed = False
        self._connecting.discard(line.agent.name)
        self._to_connect.append(line)
        if not self._retries:
            self._retries = True
            self.at(monotonic() + _RETRY_S, self._retry)

    def _retry(self) -> None:
        self._retries = False
        self._connect_some()

    def _changed(self, agent: SimulatedAgent) -> None:
        """Publish the status in a while: its counters have moved."""
        if not agent.status_planned:
            agent.status_planned = True
            self.at(monotonic() + self._status_pause_s, lambda: self._publish_status(agent))

    def _publish_status(self, agent: SimulatedAgent) -> None:
        agent.status_planned = False
        self.write(agent, agent.status())

    def _send_again_later(self, agent: SimulatedAgent, sending: Sending) -> None:
        moment = max(sending.due(agent.delay), monotonic() + _RETRY_S)
        self.at(moment, lambda: self._send_again(agent, sending))

    def _send_again(self, agent: SimulatedAgent, sending: Sending) -> None:
        sending.ids = [name for name in sending.ids if name in agent.waiting]
        if sending.ids:
            self.write(agent, agent.resend_due(sending))
            self._send_again_later(agent, sending)
