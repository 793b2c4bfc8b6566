"""A systemd unit as the managed service, controlled with systemctl and inspected with journalctl."""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from consumer.errors import ProgramError, ServiceError, ServiceUnreachable
from consumer.ports import Clock, ServiceState, Stop
from consumer.system.programs import Bounds, Ended, clean_environment, run_program

__all__ = [
    "SystemdService",
]


_PROPERTIES = (
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "InvocationID",
    "MainPID",
    "ExecMainCode",
    "ExecMainStatus",
    "TimeoutStopUSec",
)
_KILLED = {"Result": "timeout", "ExecMainCode": "2", "ExecMainStatus": "9"}  # CLD_KILLED (waitid(2)), SIGKILL
_SPAN = re.compile(r"(\d+)(us|ms|s|min|h|d)(?= |$)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_POLL_INTERVAL_S = 0.2
_SHOW_TIMEOUT_S = 10.0
_JOURNAL_TIMEOUT_S = 2.0


class SystemdService:
    """A systemd unit. Its incarnation is systemd's InvocationID (systemd.exec(5)).

    A unit that does not stay active for `settle_s` seconds after its start is an error. `via` (such as `sudo`) is put
    before systemctl and journalctl. All methods raise ServiceError, also for a unit that does not exist, and
    ServiceUnreachable if systemctl cannot be run, gets no answer from systemd, or is refused.
    """

    def __init__(self, unit: str, clock: Clock, *, settle_s: float, via: Sequence[str] = ()) -> None:
        self._unit = unit
        self._clock = clock
        self._settle_s = settle_s
        self._via = tuple(via)
        self._pause = threading.Event()

    def state(self) -> ServiceState:
        """Return the state that systemd reports."""
        return self._state_in(self._show(self._deadline_in(_SHOW_TIMEOUT_S)))

    def start(self, deadline: float) -> ServiceState:
        """Start the unit, and enable it if it was disabled."""
        before = self._show(deadline)
        if before["UnitFileState"] == "disabled":
            self._systemctl("enable", deadline)
        return self._state_in(self._bring_up("start", deadline, before))

    def stop(self, deadline: float) -> ServiceState:
        """Stop the unit, and disable it if it was enabled, so that it stays stopped after a reboot."""
        before = self._show(deadline)
        if before["UnitFileState"] == "enabled":
            self._systemctl("disable", deadline)
        self._systemctl("stop", deadline)
        after = self._show(deadline)
        stop = Stop(killed=after.items() >= _KILLED.items(), grace_s=_seconds_in(after["TimeoutStopUSec"]))
        return replace(self._state_in(after), stop=stop if before["MainPID"] != "0" else None)

    def restart(self, deadline: float) -> ServiceState:
        """Restart the unit by one systemd job, which outlives this agent and also restarts dependent units."""
        before = self._show(deadline)
        after = self._bring_up("restart", deadline, before)
        return replace(self._state_in(after), stop=self._stop_between(before, after))

    def _state_in(self, shown: Mapping[str, str]) -> ServiceState:
        running = shown["ActiveState"] in {"active", "reloading"}
        pid = int(shown["MainPID"])
        detail = {"unit": self._unit} | ({"pid": pid} if pid else {})
        return ServiceState("systemd", running, shown["InvocationID"] if running else None, detail)

    def _show(self, deadline: float) -> dict[str, str]:
        shown = dict.fromkeys(_PROPERTIES, "") | {"MainPID": "0"}
        lines = self._systemctl("show", deadline, f"--property={','.join(_PROPERTIES)}").splitlines()
        shown |= dict(line.split("=", 1) for line in lines if "=" in line)
        if shown["LoadState"] == "not-found":
            raise ServiceError(
                f"systemd has no unit {self._unit}; check service.unit in the agent's configuration.",
                code="unknown_unit",
            )
        return shown

    def _bring_up(self, verb: str, deadline: float, before: Mapping[str, str]) -> dict[str, str]:
        """Start or restart the unit; an error includes the last lines of the unit's output.

        A unit that is as it was `before` has not failed: the request did not reach systemd, or was refused.
        """
        try:
            self._ask_for(verb, deadline, before)
            return self._wait_until_stable(deadline)
        except ServiceUnreachable:
            raise
        except ServiceError as error:
            incarnation = self._show(self._deadline_in(_SHOW_TIMEOUT_S))["InvocationID"]
            printed = " | ".join(self._journal("--output=cat", "--lines=3", f"_SYSTEMD_INVOCATION_ID={incarnation}"))
            raise ServiceError(
                f"{error} Its last lines: {printed[:300]}" if printed else str(error), code=error.code
            ) from error

    def _ask_for(self, verb: str, deadline: float, before: Mapping[str, str]) -> None:
        try:
            self._systemctl(verb, deadline)
        except ServiceUnreachable as error:
            if _unchanged(self._show(self._deadline_in(_SHOW_TIMEOUT_S)), before):
                raise
            raise ServiceError(str(error), code=error.code) from error

    def _wait_until_stable(self, deadline: float) -> dict[str, str]:
        """Wait until one incarnation has been active for `settle_s` seconds, or until the deadline."""
        incarnation, since = "", self._clock.monotonic()
        while True:
            shown, now = self._show(deadline + _SHOW_TIMEOUT_S), self._clock.monotonic()
            active = shown["InvocationID"] if shown["ActiveState"] == "active" else ""
            if shown["ActiveState"] in {"failed", "inactive"} or (now >= deadline and not active):
                raise ServiceError(_why_not_up(self._unit, shown), code="not_active")
            if active != incarnation:
                incarnation, since = active, now
            elif active and now >= since + self._settle_s:
                return shown
            if now >= deadline:
                raise ServiceError(
                    f"{self._unit} was started, but the deadline passed before it had run for settle_s seconds."
                )
            self._pause.wait(_POLL_INTERVAL_S)

    def _stop_between(self, before: Mapping[str, str], after: Mapping[str, str]) -> Stop | None:
        """Return how an incarnation ended, according to systemd's journal; None if that is unknown.

        Each start resets the unit's Result. systemd logs the next incarnation after everything about the previous one.
        """
        if before["MainPID"] == "0":
            return None
        old, new = before["InvocationID"], after["InvocationID"]
        filters = ("_PID=1", f"INVOCATION_ID={old}", "+", "_PID=1", f"INVOCATION_ID={new}")
        wanted = "--output-fields=INVOCATION_ID,UNIT_RESULT"
        entries = [json.loads(line) for line in self._journal("--output=json", wanted, "--lines=100", *filters)]
        if not any(entry.get("INVOCATION_ID") == new for entry in entries):
            return None
        killed = any(entry.get("UNIT_RESULT") == "timeout" for entry in entries)
        return Stop(killed, _seconds_in(after["TimeoutStopUSec"]))

    def _journal(self, *arguments: str) -> list[str]:
        """Return lines of the journal; none if it cannot be read, because they only explain an error."""
        try:
            ended = self._run(
                ["journalctl", "--quiet", "--no-pager", *arguments], self._deadline_in(_JOURNAL_TIMEOUT_S)
            )
        except ServiceError:
            return []
        return ended.output.stdout.splitlines() if ended.good else []

    def _systemctl(self, verb: str, deadline: float, *options: str) -> str:
        ended = self._run(["systemctl", "--no-ask-password", *options, verb, "--", self._unit], deadline)
        if ended.overdue:
            raise ServiceUnreachable(
                f"systemctl {verb} {self._unit} did not end in time; systemd may still complete it.", code="timed_out"
            )
        if not ended.good:
            printed = " ".join(ended.output.stderr.split())[:500]
            raise ServiceUnreachable(
                f"systemctl {verb} {self._unit} {ended.in_words()}: {printed}", code="systemctl_failed"
            )
        return ended.output.stdout

    def _run(self, argv: Sequence[str], deadline: float) -> Ended:
        environment = clean_environment({"LC_ALL": "C"})
        try:
            return run_program([*self._via, *argv], Bounds(self._clock, deadline), environment=environment)
        except ProgramError as error:
            raise ServiceUnreachable(
                f"The unit {self._unit} cannot be managed: {error}", code="systemctl_not_run"
            ) from error

    def _deadline_in(self, seconds: float) -> float:
        return self._clock.monotonic() + seconds


def _unchanged(after: Mapping[str, str], before: Mapping[str, str]) -> bool:
    """Return whether systemd has neither done nor begun anything with the unit."""
    return all(after[name] == before[name] for name in ("ActiveState", "SubState", "InvocationID", "Result"))


def _why_not_up(unit: str, shown: Mapping[str, str]) -> str:
    state = f"it is {shown['ActiveState']} ({shown['SubState']})"
    return f"{unit} does not stay active: {state}, result {shown['Result']}, exit status {shown['ExecMainStatus']}."


def _seconds_in(span: str) -> float | None:
    """Return the seconds in a time span as systemctl shows it ('1min 30s'); None for 'infinity'."""
    parts = _SPAN.findall(span)
    return sum(int(number) * _SECONDS[unit] for number, unit in parts) if parts else None
