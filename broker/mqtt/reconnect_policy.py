"""How long a client waits before it connects again: growing waits with jitter, so that clients spread out."""

from collections.abc import Callable
from enum import Enum, auto

from broker.mqtt.reason_codes import SESSION_TAKEN_OVER
from broker.system.retry import growing_wait

__all__ = ["End", "ReconnectPolicy"]


_STABLE_S = 5.0  # a connection that ends sooner did not work, and the waits continue to grow
_WORKED_S = 600.0  # the same, for one that this client abandoned: noticing that takes a minute
_FIRST_WAIT_S = 1.0
_LONGEST_UNREACHED_S = 30.0  # an outage's end is noticed within this time
_LONGEST_UNSTABLE_S = 300.0
_SUSPICIOUS = 5  # connections that ended at once and without a reason, one after another
_FIRST_YIELD_S = 240.0
_FIRST_SUSPECTED_YIELD_S = 120.0
_LONGEST_YIELD_S = 600.0


class End(Enum):
    """How an attempt to connect, or a connection, ended."""

    UNREACHED = auto()
    """The broker has not accepted this client."""
    CLOSED = auto()
    """The connection ended without a reason from the broker."""
    EXPLAINED = auto()
    """The broker sent a DISCONNECT with another reason."""
    ABANDONED = auto()
    """This client has ended it, because it does not work."""
    TAKEN_OVER = auto()
    """Another client connected under the same client id."""

    @classmethod
    def of(cls, code: int | None) -> "End":
        """Return the end of a connection with this reason code in the broker's DISCONNECT; None: it sent none."""
        return {None: cls.CLOSED, SESSION_TAKEN_OVER: cls.TAKEN_OVER}.get(code, cls.EXPLAINED)


class ReconnectPolicy:
    """Waits in seconds; `monotonic` is a clock in seconds.

    They grow while the broker is away or its connections end within seconds, and begin again after one that lasted.
    Two clients with one name would end each other's connections forever: the one that notices it yields for minutes.
    Some brokers report it (TAKEN_OVER); with others it is suspected after several connections that ended at once.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._connected_at: float | None = None
        self._attempts = 0
        self._short_lived = 0
        self._yields = 0

    @property
    def suspects_another_client(self) -> bool:
        """Whether the connections end as if another client took them over again and again."""
        return self._short_lived >= _SUSPICIOUS

    def connected(self) -> None:
        """Note that the broker has accepted this client."""
        self._connected_at = self._monotonic()

    def wait_after(self, end: End) -> float:
        """Return how long to wait now; an attempt or a connection has ended."""
        was_connected = self._connected_at is not None
        self._note(end)
        if end is End.TAKEN_OVER or (end is End.CLOSED and self.suspects_another_client):
            first_s = _FIRST_YIELD_S if end is End.TAKEN_OVER else _FIRST_SUSPECTED_YIELD_S
            self._yields += 1
            return growing_wait(self._yields - 1, first_s=first_s, longest_s=_LONGEST_YIELD_S)
        longest_s = _LONGEST_UNSTABLE_S if was_connected else _LONGEST_UNREACHED_S
        self._attempts += 1
        return growing_wait(self._attempts - 1, first_s=_FIRST_WAIT_S, longest_s=longest_s)

    def _note(self, end: End) -> None:
        stable_s = _WORKED_S if end is End.ABANDONED else _STABLE_S
        lasted = self._connected_at is not None and self._monotonic() >= self._connected_at + stable_s
        self._connected_at = None
        if lasted:
            self._attempts = self._short_lived = 0
        if lasted and end is not End.TAKEN_OVER:
            self._yields = 0
        if end is End.UNREACHED:
            self._short_lived = 0  # the broker itself was away
        elif end is End.CLOSED and not lasted:
            self._short_lived += 1
