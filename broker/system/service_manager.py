"""Reports to the service manager that the loop of a program turns: by sd_notify(3), and by a health file."""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = [
    "HEALTH_FILE",
    "VARIABLES",
    "ServiceManager",
]


VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd passes in the environment. No child gets it: it could speak in the name of the program."""

HEALTH_FILE = "ACM_HEALTH_FILE"
"""The variable that names the file which a program touches while it works."""

_LONGEST_START_S = 15.0
_INTERVAL_S = 5.0


class ServiceManager:
    """The connection to systemd, and the health file named in ACM_HEALTH_FILE; nothing happens without either.

    Call `turn` from the program's main loop, and from nowhere else: a loop that hangs must be silent.
    """

    def __init__(self, monotonic: Callable[[], float], environment: Mapping[str, str] = os.environ) -> None:
        self._monotonic = monotonic
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._health_file = Path(environment[HEALTH_FILE]) if environment.get(HEALTH_FILE) else None
        self._interval_s = min(_INTERVAL_S, _watchdog_s(environment) / 4)
        self._began = monotonic()
        self._told_at = -self._interval_s
        self._status = ""
        self._is_ready = False

    def turn(self, *, ready: bool, status: str) -> None:
        """Report that the loop turns (WATCHDOG=1), at most every 5 seconds unless something is new.

        READY=1 is sent when `ready` for the first time, or after 15 seconds: a broker that is away must not keep the
        program from starting. The health file is touched while `ready`. `status` is a few words for people.
        """
        status = " ".join(status.split())  # a line feed would begin another message
        now = self._monotonic()
        starts = not self._is_ready and (ready or now >= self._began + _LONGEST_START_S)
        if not starts and status == self._status and now < self._told_at + self._interval_s:
            return
        self._is_ready |= starts
        self._told_at, self._status = now, status
        self._send("READY=1\n" * starts + f"WATCHDOG=1\nSTATUS={status}")
        if ready and self._health_file is not None:
            with contextlib.suppress(OSError):
                self._health_file.touch(mode=0o600)

    def stopping(self) -> None:
        """Report that the program ends (STOPPING=1)."""
        self._send("STOPPING=1\nSTATUS=Stopping.")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), self._address)


def _address(name: str) -> str | None:
    """Return the socket's address; '@' stands for the null byte of an abstract one (sd_notify(3))."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Return WatchdogSec of the unit (sd_watchdog_enabled(3)); infinity without one."""
    try:
        return int(environment.get("WATCHDOG_USEC", "")) / 1e6 or float("inf")
    except ValueError:
        return float("inf")
