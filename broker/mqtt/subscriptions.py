"""The subscriptions of a connection: what the broker refused is requested again, with growing waits."""

import threading
from collections.abc import Callable, Iterator, Sequence

import structlog

from broker.system.retry import growing_waits

__all__ = ["Subscriptions"]


_log = structlog.get_logger("acm.mqtt")
_NO_WILDCARDS = "wildcard subscriptions are not available"


class Subscriptions:
    """Topic filters, and which of them the broker refuses. For any thread; `monotonic` is a clock in seconds.

    At most one SUBSCRIBE is unanswered at a time: of the topics that `begin` or `take_due` returned last.
    """

    def __init__(self, topics: Sequence[str], monotonic: Callable[[], float]) -> None:
        self._topics = tuple(topics)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._requested: tuple[str, ...] = ()
        self._refused: dict[str, str] = {}
        self._waits: Iterator[float] = growing_waits()
        self._due = 0.0

    @property
    def problem(self) -> str | None:
        """Which subscriptions the broker refuses, as a sentence; None if it refuses none."""
        with self._lock:
            refused = ", ".join(f"{topic} ({reason})" for topic, reason in self._refused.items())
        return f"The broker refuses to subscribe {refused}; it is requested again." if refused else None

    def begin(self, *, wildcards: bool) -> tuple[str, ...]:
        """Return the topics to subscribe on a new connection."""
        with self._lock:
            lacking = () if wildcards else tuple(topic for topic in self._topics if "+" in topic or "#" in topic)
            self._refused = dict.fromkeys(lacking, _NO_WILDCARDS)
            self._requested = tuple(topic for topic in self._topics if topic not in lacking)
            self._waits, self._due = growing_waits(), float("inf")
            return self._requested

    def take_due(self) -> tuple[str, ...]:
        """Return the refused topics if they are to be subscribed again now."""
        with self._lock:
            if self._requested or not self._refused or self._monotonic() < self._due:
                return ()
            self._requested = tuple(self._refused)
            return self._requested

    def answered(self, failures: Sequence[str | None]) -> None:
        """Take the SUBACK: for each topic why it was refused, or None (MQTT 5 section 3.9.3)."""
        with self._lock:
            before = dict(self._refused)
            for topic, failure in zip(self._requested, failures, strict=False):
                self._refused.pop(topic, None)
                if failure is not None:
                    self._refused[topic] = failure
            self._requested = ()
            self._due = self._monotonic() + next(self._waits)
            refused = dict(self._refused)
        if refused and refused != before:
            _log.error("mqtt_subscription_refused", refused=refused)
        elif before and not refused:
            _log.info("mqtt_subscribed", topics=list(before))
