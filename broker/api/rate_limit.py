"""Rate limits: each principal may send some requests at once, and then so many each second."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from broker.errors import BrokerError

__all__ = [
    "DEFAULT_RATE",
    "Rate",
    "RateLimit",
    "RateLimited",
]


_MAX_NAMES = 4096


class RateLimited(BrokerError):
    """A principal has sent too many requests."""

    code = "rate_limited"

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Rate:
    """At most `burst` requests at once, and `per_second` of them in the long run."""

    burst: int
    per_second: float


DEFAULT_RATE = Rate(burst=200, per_second=50.0)


class RateLimit:
    """The requests of each name, as a bucket of tokens that fills again. `monotonic` is a clock in seconds.

    The 4096 names seen last are remembered.
    """

    def __init__(self, rate: Rate, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        """Count one request; raises RateLimited, and does not count it, if that is too many."""
        now = self._monotonic()
        with self._lock:
            left, at = self._buckets.pop(name, (float(self._rate.burst), now))
            left = min(float(self._rate.burst), left + (now - at) * self._rate.per_second)
            allowed = left >= 1
            self._buckets[name] = (left - 1 if allowed else left, now)
            if len(self._buckets) > _MAX_NAMES:
                self._buckets.popitem(last=False)
        if not allowed:
            wait_s = math.ceil((1 - left) / self._rate.per_second)
            raise RateLimited(
                f"Too many requests: at most {self._rate.per_second:g} each second, and {self._rate.burst} at once. "
                f"Try again in {wait_s} s.",
                retry_after_s=wait_s,
            )
