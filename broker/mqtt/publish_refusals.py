"""The messages that the broker refused in their PUBACK (MQTT 5 section 3.4.2.1)."""

from collections.abc import Callable

import structlog

from broker.system.log_throttle import LogThrottle

__all__ = ["PublishRefusals"]


_log = structlog.get_logger("acm.mqtt")
_SHOWN = 3


class PublishRefusals:
    """Which topics the broker refuses, until it confirms a message on them. `monotonic` is a clock in seconds.

    A refused message is not repeated here: its publisher sends it again, as for one that was lost.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._refused: dict[str, str] = {}
        self._throttle = LogThrottle(monotonic)

    @property
    def problem(self) -> str | None:
        """Which topics the broker refuses, as a sentence; None if it refuses none."""
        refused = list(self._refused.copy().items())
        if not refused:
            return None
        shown = ", ".join(f"{topic} ({reason})" for topic, reason in refused[:_SHOWN])
        more = f" and {len(refused) - _SHOWN} more topics" if len(refused) > _SHOWN else ""
        return f"The broker refuses messages on {shown}{more}; they are sent again later."

    def refused(self, topic: str, reason: str) -> None:
        """Note a refused message, and log it at most once a minute for a topic and reason."""
        self._refused[topic] = reason
        self._throttle.warn(_log, "mqtt_publish_refused", topic, reason, topic=topic, reason=reason)

    def too_long(self, topic: str, size: int, limit: int) -> None:
        """Log, as above, a payload of `size` bytes that was not sent: at most `limit` fit."""
        self._throttle.warn(_log, "mqtt_message_too_long", topic, topic=topic, bytes=size, limit=limit)

    def confirmed(self, topic: str) -> None:
        """Note a message that the broker has accepted."""
        self._refused.pop(topic, None)

    def clear(self) -> None:
        """Forget them, as on a new connection."""
        self._refused.clear()
