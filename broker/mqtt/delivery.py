"""Received MQTT messages, and the queue that takes them from the network thread to the thread that handles them."""

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from broker.contract.trace_context import TraceContext

__all__ = [
    "Delivery",
    "DeliveryQueue",
]


_MAX_QOS_0_WAITING = 1000
_CHECK_INTERVAL_S = 1.0


class Delivery(msgspec.Struct, frozen=True):
    """A message as received. `mid` is the packet id, 0 for QoS 0; only connection number `connection` may ack it.

    `trace` is the context that its sender has added, if any.
    """

    topic: str
    payload: bytes
    retained: bool
    duplicate: bool
    mid: int
    connection: int
    trace: TraceContext | None = None


class DeliveryQueue:
    """A queue of deliveries from one thread to another; any thread may wake the other one."""

    def __init__(self) -> None:
        self._batches: queue.SimpleQueue[Sequence[Delivery] | None] = queue.SimpleQueue()
        self._rest: deque[Delivery] = deque()
        self._count = 0
        self._taken = 0

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Append deliveries. Those at QoS 0 are dropped if too many are waiting: nothing else bounds those."""
        if self._count - self._taken >= _MAX_QOS_0_WAITING:
            deliveries = [delivery for delivery in deliveries if delivery.mid]
        self._count += len(deliveries)
        if deliveries:
            self._batches.put(deliveries)

    def wake(self) -> None:
        """End a wait in `drain` early."""
        self._batches.put(None)

    def drain(
        self,
        timeout_s: float,
        limit: int,
        check: Callable[[], None],
        work: Callable[[float, Callable[[], bool]], bool],
    ) -> list[Delivery]:
        """Wait for a delivery, then return all that are waiting, at most `limit`; empty after a wake.

        `check` is called about once a second while waiting. `work` waits in place of this queue, at most for the
        seconds that it gets and while the queue is empty, and brings deliveries; False if another thread brings them.
        """
        batch = () if self._rest else self._first(timeout_s, check, work)
        while batch is not None:
            self._rest.extend(batch)
            if len(self._rest) >= limit:
                break
            try:
                batch = self._batches.get_nowait()
            except queue.Empty:
                break
        deliveries = [self._rest.popleft() for _ in range(min(limit, len(self._rest)))]
        self._taken += len(deliveries)
        return deliveries

    def _first(
        self, timeout_s: float, check: Callable[[], None], work: Callable[[float, Callable[[], bool]], bool]
    ) -> Sequence[Delivery] | None:
        deadline = time.monotonic() + timeout_s
        while True:
            check()
            left = max(0.0, deadline - time.monotonic())
            wait_s = min(left, _CHECK_INTERVAL_S)
            works = work(wait_s, self._batches.empty)
            try:
                return self._batches.get(timeout=0.0 if works else wait_s)
            except queue.Empty:
                if time.monotonic() >= deadline:
                    return None
