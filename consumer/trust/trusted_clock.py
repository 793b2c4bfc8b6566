"""The time as far as the agent can know it: the machine's clock, never behind what its server has signed."""

from datetime import datetime, timedelta

import structlog

from consumer.ports import Clock, TimeSample

__all__ = [
    "CLOCK_TOLERANCE_S",
    "ServerClock",
]


_log = structlog.get_logger(__name__)
CLOCK_TOLERANCE_S = 60.0


class ServerClock:
    """A consumer.ports.Clock that a machine's slow clock does not mislead about what has expired.

    What a server has signed says that it was that time there, so now is not before that and what has passed since by
    the monotonic clock. It does not go back by what comes later and says less, or a frame that was kept back could make
    an expired command good again; `answered` alone can show that the server's own clock was wrong.

    `kept` is what an earlier process has heard, see `to_keep`. What has passed since is told by the machine's clock,
    which may be wrong, but hardly stands still.
    """

    def __init__(self, clock: Clock, kept: TimeSample | None = None) -> None:
        self._clock = clock
        self._heard: tuple[datetime, float] | None = None
        if kept is not None:
            since = max(clock.now() - kept.machine, timedelta())
            self._heard = kept.server + since, clock.monotonic()

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC: the later one of the machine's and the server's."""
        machine = self._clock.now()
        return max(machine, self._server_now() or machine)

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
        server = self._server_now()
        if server is not None and moment <= server:
            return
        behind = (moment - self.now()).total_seconds()
        self._heard = moment, self._clock.monotonic()
        if behind > CLOCK_TOLERANCE_S:
            _log.warning("clock_is_behind", behind_s=self.behind_s)

    def answered(self, said_at: datetime, signed_at: datetime) -> None:
        """Take in that the server has signed an answer to what this agent had said when its `now` was `said_at`.

        The answer cannot be older than what it answers. When it says that it is, the server's clock was wrong before
        and has been put right: what it says now counts. No other message can show that, for it may have been kept back.
        """
        if self.behind_s is not None and (said_at - signed_at).total_seconds() > CLOCK_TOLERANCE_S:
            self._heard = signed_at, self._clock.monotonic()
            _log.warning("servers_clock_went_back", from_time=said_at.isoformat(), to_time=signed_at.isoformat())

    def to_keep(self, kept: TimeSample | None, *, busy: bool) -> TimeSample | None:
        """Return what must be kept for the next process in place of `kept`, or None while that is good enough.

        It is once the clocks have parted, or come together, and once a minute while the agent is `busy`.
        """
        server = self._server_now()
        if server is None:
            return None
        heard = TimeSample(server, self._clock.now())
        if kept is None:
            return heard
        moved_s = (heard.server - kept.server).total_seconds()
        parted_s = abs((heard.ahead - kept.ahead).total_seconds())
        return heard if parted_s > CLOCK_TOLERANCE_S or (busy and moved_s > CLOCK_TOLERANCE_S) else None

    def _server_now(self) -> datetime | None:
        if self._heard is None:
            return None
        moment, at = self._heard
        return moment + timedelta(seconds=self._clock.monotonic() - at)
