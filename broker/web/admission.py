"""Admits connections to a web server: bounded in all and for each address, from the moment they are accepted.

A connection above a limit is closed at once: anybody can open connections, and each one takes a file descriptor that
the revocation of an agent may need.
"""

import contextlib
import errno
import ipaddress
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

__all__ = [
    "AdmittingSocket",
    "connections_within_limits",
]


_SPARE_DESCRIPTORS = 64  # for the ledger, the authority, the broker, and the log
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S = 0.05
_MAX_REFUSALS = 256


def connections_within_limits(wanted: int) -> int:
    """Raise the process's limit of open files as far as it may; return how many connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - _SPARE_DESCRIPTORS))


class _Admission:
    """Counts the open connections. Thread-safe, since a socket may be closed by the garbage collector."""

    def __init__(self, most: int, most_of_address: int) -> None:
        self._most, self._most_of_address = most, most_of_address
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, address: str) -> bool:
        with self._lock:
            if self._open.total() >= self._most or self._open[address] >= self._most_of_address:
                return False
            self._open[address] += 1
            return True

    def leave(self, address: str) -> None:
        with self._lock:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]


class _Connection(socket.socket):
    """An accepted connection, which is counted until it is closed."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def __del__(self) -> None:
        self.close()


class AdmittingSocket(socket.socket):
    """A listening socket whose `accept` returns admitted connections only; made of another one, which it takes over.

    `on_shortage` is called when the system has no descriptor or memory for a connection.
    """

    def __init__(
        self, listener: socket.socket, most: int, most_of_address: int, on_shortage: Callable[[OSError], None]
    ) -> None:
        super().__init__(listener.family, listener.type, listener.proto, listener.detach())
        # Inherited by what it accepts. asyncio sets it for sockets that name their protocol, which a listener's do not;
        # the body of an answer would wait for the client's acknowledgement of the head, which it delays by 40 ms.
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._admission = _Admission(most, most_of_address)
        self._on_shortage = on_shortage

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Return the next admitted connection; raises BlockingIOError if there is none."""
        for _ in range(_MAX_REFUSALS):
            descriptor, peer = self._accept()
            address = _network_of(peer[0])
            if self._admission.enter(address):
                connection = _Connection(self.family, self.type, self.proto, descriptor)
                connection.on_close = partial(self._admission.leave, address)
                return connection, peer
            socket.close(descriptor)
        raise BlockingIOError  # the event loop has other work, too, and comes back

    def _accept(self) -> tuple[int, tuple[str, int]]:
        try:
            return super()._accept()  # type: ignore[misc,no-any-return]
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self._on_shortage(error)
                time.sleep(_PAUSE_S)  # asyncio would try again at once, and log each time
                raise BlockingIOError from error
            raise


def _network_of(host: str) -> str:
    """Return the address that a client is counted under: of IPv6 the network of a machine, which has many addresses."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
