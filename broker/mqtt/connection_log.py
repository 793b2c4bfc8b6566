"""The log of one connection: each outage at its beginning, at each new reason, then rarely, and at its end."""

from collections.abc import Callable

import structlog

__all__ = ["ConnectionLog"]


_log = structlog.get_logger("acm.mqtt")
_INTERVAL_S = 600.0
_MAX_REASONS = 100


class ConnectionLog:
    """Logs for one broker; `address` is its host and port, `monotonic` a clock in seconds."""

    def __init__(self, address: str, monotonic: Callable[[], float]) -> None:
        self._address = address
        self._monotonic = monotonic
        self._attempts = 0
        self._began = 0.0
        self._logged_at = 0.0
        self._reasons: set[str] = set()
        self._shortcomings: tuple[str, ...] = ()

    def failed(self, reason: str, retry_in_s: float) -> None:
        """Log an attempt that failed, if it is the first one, or has a new reason, or ten minutes have passed."""
        now = self._monotonic()
        if self._attempts == 0:
            self._began = now
        self._attempts += 1
        if reason in self._reasons and now < self._logged_at + _INTERVAL_S:
            return
        if len(self._reasons) >= _MAX_REASONS:
            self._reasons.clear()
        self._reasons.add(reason)
        self._logged_at = now
        _log.warning(
            "mqtt_connection_failed",
            address=self._address,
            attempts=self._attempts,
            reason=reason,
            retry_in_s=round(retry_in_s, 1),
        )

    def connected(self, connection: int, *, session_present: bool, slow: str | None) -> None:
        """Log the connection, how many attempts had failed before it, and why it is `slow`, if it is."""
        outage = {"failed_attempts": self._attempts, "down_s": round(self._monotonic() - self._began)}
        self._attempts = 0
        self._reasons.clear()
        _log.info(
            "mqtt_connected",
            address=self._address,
            connection=connection,
            session_present=session_present,
            **(outage if outage["failed_attempts"] else {}),
            **({"slow": slow} if slow else {}),
        )

    def lost(self, reason: str, retry_in_s: float) -> None:
        """Log the end of a connection."""
        _log.warning("mqtt_connection_lost", address=self._address, reason=reason, retry_in_s=round(retry_in_s, 1))

    def lacks(self, shortcomings: tuple[str, ...]) -> None:
        """Log what the broker does not offer, unless it was logged before."""
        for sentence in shortcomings:
            if sentence not in self._shortcomings:
                _log.warning("mqtt_broker_lacks", address=self._address, reason=sentence)
        self._shortcomings = shortcomings
