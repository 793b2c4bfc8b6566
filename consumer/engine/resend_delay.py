"""How fast the server processes results: what was sent is not sent again while it waits there for its turn."""

from math import inf

from broker.system.retry import LONGEST_WAIT_S

__all__ = [
    "ResendDelay",
]


_SLOWER_BY = 2  # the next ack may take twice as long as the last


# design.md: "A slow server is given time"
class ResendDelay:
    """What the last ack said of the server, which processes results in the order in which they were sent.

    All times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._acked_at = self._acked_sent_at = -inf
        self._least_s = 0.0

    def note_ack(self, sent_at: float, now: float, *, is_clear: bool) -> None:
        """Note the ack of a result, and how long it took if it `is_clear` which sending it is for (RFC 6298, 3).

        `sent_at` is -inf if that was on an earlier connection.
        """
        self._acked_at, self._acked_sent_at = now, max(sent_at, self._acked_sent_at)
        if is_clear and sent_at > -inf:
            self._least_s = min(LONGEST_WAIT_S, _SLOWER_BY * (now - sent_at))

    def not_before(self, sent_at: float) -> float:
        """Return when a result that was sent then may be sent again.

        While nothing that was sent later is acked, it is in its turn, and each ack of an earlier one is a step to it.
        """
        return (max(sent_at, self._acked_at) if sent_at >= self._acked_sent_at else sent_at) + self._least_s
