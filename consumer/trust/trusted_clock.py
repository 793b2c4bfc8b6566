"""The agent's best estimate of the time: the machine's clock, but never before the time that its server has signed."""

from datetime import datetime, timedelta

import structlog

from consumer.ports import Clock, TimeSample

__all__ = [
    "CLOCK_TOLERANCE_S",
    "TrustedClock",
]


_log = structlog.get_logger(__name__)
CLOCK_TOLERANCE_S = 60.0


class TrustedClock:
    """A consumer.ports.Clock that keeps a slow machine clock from accepting what has expired.

    A signature proves the server's time when it was made, so the current time is at least that time plus the monotonic
    time since. A later message with an earlier time does not set the clock back, or a delayed frame could make an
    expired command valid again; only `observe_reply` can show that the server's own clock was wrong.

    `saved` is the sample that an earlier process saved, see `sample_to_save`. The time since then is taken from the
    machine's clock, which may be wrong but keeps running.
    """

    # design.md: "The signed time is a lower bound of the current time."

    def __init__(self, clock: Clock, saved: TimeSample | None = None) -> None:
        self._clock = clock
        self._observed: tuple[datetime, float] | None = None
        if saved is not None:
            passed = max(clock.now() - saved.machine, timedelta())
            self._observed = saved.server + passed, clock.monotonic()

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC: the later of the machine's time and the server's."""
        machine = self._clock.now()
        return max(machine, self._server_now() or machine)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._clock.monotonic()

    @property
    def behind_s(self) -> int | None:
        """Seconds, rounded to minutes, that the machine's clock is behind the server's; None within the tolerance."""
        server = self._server_now()
        behind = 0.0 if server is None else (server - self._clock.now()).total_seconds()
        return round(behind / 60) * 60 if behind > CLOCK_TOLERANCE_S else None

    def observe(self, signed_at: datetime) -> None:
        """Record the time, by the server's clock, of a valid signature."""
        server = self._server_now()
        if server is not None and signed_at <= server:
            return
        behind = (signed_at - self.now()).total_seconds()
        self._observed = signed_at, self._clock.monotonic()
        if behind > CLOCK_TOLERANCE_S:
            _log.warning("clock_is_behind", behind_s=self.behind_s)

    def observe_reply(self, sent_at: datetime, signed_at: datetime) -> None:
        """Record when the server signed its reply to a message that this agent sent at `sent_at` by its `now`.

        The reply cannot be older than the message that it answers. If its time is earlier, the server's clock was wrong
        before and has been corrected, so its current time counts. No other message can show that: it may have been
        delayed.
        """
        if self.behind_s is not None and (sent_at - signed_at).total_seconds() > CLOCK_TOLERANCE_S:
            self._observed = signed_at, self._clock.monotonic()
            _log.warning("server_clock_stepped_back", from_time=sent_at.isoformat(), to_time=signed_at.isoformat())

    def sample_to_save(self, saved: TimeSample | None, *, busy: bool) -> TimeSample | None:
        """Return a sample to save for the next process in place of `saved`; None if `saved` is still accurate.

        It is not after the clocks have drifted by the tolerance, or, while the agent is `busy`, after a minute.
        """
        server = self._server_now()
        if server is None:
            return None
        sample = TimeSample(server, self._clock.now())
        if saved is None:
            return sample
        moved_s = (sample.server - saved.server).total_seconds()
        drift_s = abs((sample.ahead - saved.ahead).total_seconds())
        return sample if drift_s > CLOCK_TOLERANCE_S or (busy and moved_s > CLOCK_TOLERANCE_S) else None

    def _server_now(self) -> datetime | None:
        if self._observed is None:
            return None
        signed_at, monotonic = self._observed
        return signed_at + timedelta(seconds=self._clock.monotonic() - monotonic)
