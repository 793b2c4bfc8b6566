"""A systemd unit as the managed service."""

import subprocess

from consumer.errors import ServiceError
from consumer.ports import Clock, ServiceState

__all__ = ["SystemdService"]


class SystemdService:
    """A systemd unit, by systemctl. Its incarnation is systemd's InvocationID (systemd.exec(5))."""

    def __init__(self, unit: str, clock: Clock, systemctl: str = "systemctl") -> None:
        self._unit = unit
        self._clock = clock
        self._systemctl = systemctl

    def _call(self, *arguments: str, deadline: float) -> str:
        left = max(0.1, deadline - self._clock.monotonic())
        try:
            done = subprocess.run(
                [self._systemctl, *arguments], capture_output=True, text=True, timeout=left, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ServiceError(f"systemctl {arguments[0]} {self._unit} did not end in time.") from error
        except OSError as error:
            raise ServiceError(f"systemctl could not be run: {error.strerror}.") from error
        if done.returncode:
            raise ServiceError(f"systemctl {arguments[0]} {self._unit} failed: {done.stderr.strip()[:500]}")
        return done.stdout

    def state(self) -> ServiceState:
        """Ask systemd."""
        deadline = self._clock.monotonic() + 10
        shown = self._call("show", self._unit, "--property=ActiveState,InvocationID,MainPID", deadline=deadline)
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        running = values.get("ActiveState") in {"active", "reloading"}
        incarnation = values.get("InvocationID") if running else None
        return ServiceState("systemd", running, incarnation, {"unit": self._unit})

    def start(self, deadline: float) -> ServiceState:
        """Enable and start the unit."""
        self._call("enable", "--now", self._unit, deadline=deadline)
        return self.state()

    def stop(self, deadline: float) -> ServiceState:
        """Disable and stop the unit, so that it stays stopped after a reboot as well."""
        self._call("disable", "--now", self._unit, deadline=deadline)
        return self.state()

    def restart(self, deadline: float) -> ServiceState:
        """Restart the unit."""
        self._call("restart", self._unit, deadline=deadline)
        return self.state()
