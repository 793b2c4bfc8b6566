"""The time as far as the agent can know it: the machine's clock, never behind what its server has signed."""

from datetime import datetime, timedelta

import structlog

from consumer.ports import Clock

__all__ = ["CLOCK_TOLERANCE_S", "ServerClock"]

_log = structlog.get_logger(__name__)
CLOCK_TOLERANCE_S = 60.0


class ServerClock:
    """A consumer.ports.Clock that a machine's slow clock does not mislead about what has expired.

    What a server has signed says that it was that time there. When this machine's clock is behind it by more than
    CLOCK_TOLERANCE_S, the server's time is taken from then on. It never goes back, or a frame that was kept back and
    comes late could make an expired command good again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC: the later one of the machine's and the server's."""
        return max(self._clock.now(), self._server_now() or self._clock.now())

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._clock.monotonic()

    @property
    def behind_s(self) -> int | None:
        """By how many seconds, in whole minutes, the machine's clock is behind the server's; None if by few."""
        server = self._server_now()
        behind = 0.0 if server is None else (server - self._clock.now()).total_seconds()
        return round(behind / 60) * 60 if behind > CLOCK_TOLERANCE_S else None

    def hear(self, moment: datetime) -> None:
        """Take in when, by the server's clock, it has signed something that was found good."""
        if (moment - self.now()).total_seconds() > CLOCK_TOLERANCE_S:
            self._heard = moment, self._clock.monotonic()
            _log.warning("clock_is_behind", behind_s=self.behind_s)

    def _server_now(self) -> datetime | None:
        if self._heard is None:
            return None
        moment, at = self._heard
        return moment + timedelta(seconds=self._clock.monotonic() - at)
