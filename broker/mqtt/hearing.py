"""Whether messages still arrive: a broker delivers nothing more to a client whose PUBACKs are lost, and answers pings.

Neither MQTT nor the client can see that, only those who know that something should have come.
"""

from collections.abc import Callable

from broker.contract.states import SILENT_AFTER_S

__all__ = ["Hearing"]


_LONGEST_PATIENCE_S = 3600.0


class Hearing:
    """How long nothing has arrived on a connection. For any thread; `monotonic` is a clock in seconds.

    Its patience is ten minutes, and doubles up to an hour while new connections do not help: perhaps
    the other side is away.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._patience_s = SILENT_AFTER_S

    @property
    def quiet_s(self) -> float:
        """The seconds since the last message, or since the connection was made."""
        return self._monotonic() - self._since

    def begin(self) -> None:
        """Count from now on, as on a new connection."""
        self._since = self._monotonic()

    def heard(self) -> None:
        """Note a message that somebody has just sent; a retained one may be old."""
        self._since = self._monotonic()
        self._patience_s = SILENT_AFTER_S

    def is_deaf(self, expected: Callable[[], bool]) -> bool:
        """Return whether nothing has arrived for too long, although something was `expected`; then begin again.

        `expected` is called only when it matters.
        """
        if self.quiet_s < self._patience_s:
            return False
        self.begin()
        if not expected():
            return False
        self._patience_s = min(2 * self._patience_s, _LONGEST_PATIENCE_S)
        return True
