"""Received MQTT messages, and the queue that takes them from the network thread to the thread that handles them."""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "Delivery",
    "DeliveryQueue",
]


_MAX_QOS_0_WAITING = 1000
_CHECK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as received. `mid` is the packet id, 0 for QoS 0; only connection number `connection` may ack it."""

    topic: str
    payload: bytes
    retained: bool
    duplicate: bool
    mid: int
    connection: int


class DeliveryQueue:
    """A queue of deliveries, for any thread."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()

    def put(self, delivery: Delivery) -> None:
        """Append a delivery. One at QoS 0 is dropped if too many are waiting: nothing else bounds those."""
        if delivery.mid or self._items.qsize() < _MAX_QOS_0_WAITING:
            self._items.put(delivery)

    def wake(self) -> None:
        """End a wait in `drain` early."""
        self._items.put(None)

    def drain(self, timeout_s: float, limit: int, check: Callable[[], None]) -> list[Delivery]:
        """Wait for a delivery, then return all that are waiting, at most `limit`; empty after a wake.

        `check` is called about once a second while waiting.
        """
        deliveries: list[Delivery] = []
        item = self._first(timeout_s, check)
        while item is not None:
            deliveries.append(item)
            if len(deliveries) >= limit:
                break
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                break
        return deliveries

    def _first(self, timeout_s: float, check: Callable[[], None]) -> Delivery | None:
        deadline = time.monotonic() + timeout_s
        while True:
            check()
            left = deadline - time.monotonic()
            try:
                return self._items.get(timeout=max(0.0, min(left, _CHECK_INTERVAL_S)))
            except queue.Empty:
                if left <= _CHECK_INTERVAL_S:
                    return None
