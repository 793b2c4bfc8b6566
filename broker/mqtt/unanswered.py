"""The packets that the broker has not answered, and for how long: a connection that answers pings alone is a bad one.

A PUBACK that is lost is never sent again on the same connection, and enough of them stop all publishing for good.
"""

import threading
from collections.abc import Callable, Iterable

from broker.mqtt.failures import NO_ANSWER

__all__ = ["Unanswered"]


_LONGEST_S = 60.0
_LONGEST_CONNECT_S = 15.0
_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _PINGREQ, _PINGRESP = (1, 2, 3, 4, 8, 9, 12, 13)
_ANSWERS = {_CONNECT: _CONNACK, _PUBLISH: _PUBACK, _SUBSCRIBE: _SUBACK, _PINGREQ: _PINGRESP}
_NAMES = {_PUBACK: "a message", _SUBACK: "a subscription", _PINGRESP: "a ping"}
_WITH_PACKET_ID = (_PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK)


class Unanswered:
    """What one connection waits for, in the order in which it was sent. For any thread; `monotonic` is in seconds.

    The broker answers in that order (MQTT 5 section 4.6), so a packet's time begins again whenever the one before all
    others is answered: on a slow line, many are on their way for long.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._sent: dict[tuple[int, int], float] = {}  # by the type of the answer and the packet id
        self._advanced_at = 0.0

    def clear(self) -> None:
        """Forget everything, as before a new connection."""
        with self._lock:
            self._sent.clear()

    def sent(self, kind: int, packet_id: int) -> None:
        """Note a packet of this type (MQTT 5 section 2.1.2); one that is not answered at all changes nothing."""
        answer = _ANSWERS.get(kind)
        if answer is not None:
            with self._lock:
                self._sent.setdefault((answer, packet_id if kind in _WITH_PACKET_ID else 0), self._monotonic())

    def answered(self, kind: int, packet_id: int) -> None:
        """Note a packet of the broker; one that answers nothing changes nothing."""
        self.all_answered(kind, (packet_id if kind in _WITH_PACKET_ID else 0,))

    def all_answered(self, kind: int, packet_ids: Iterable[int]) -> None:
        """Note packets of one type that have come together, in this order."""
        now = self._monotonic()
        with self._lock:
            for packet_id in packet_ids:
                key = (kind, packet_id)
                if key in self._sent:
                    if key == next(iter(self._sent)):
                        self._advanced_at = now
                    del self._sent[key]

    @property
    def problem(self) -> str | None:
        """What the broker should have answered, as the part of a sentence after a colon; None if it can still do so."""
        with self._lock:
            (kind, _), sent_at = next(iter(self._sent.items()), ((0, 0), 0.0))
            longest_s = _LONGEST_CONNECT_S if kind == _CONNACK else _LONGEST_S
            if not kind or self._monotonic() < max(sent_at, self._advanced_at) + longest_s:
                return None
        return NO_ANSWER if kind == _CONNACK else f"the broker has not answered {_NAMES[kind]} for {longest_s:.0f} s"
