"""A service in memory that reads its configuration when it starts and on HUP, as reloading_service.sh does."""

import signal
from collections.abc import Callable
from pathlib import Path

from consumer.errors import ServiceError
from consumer.ports import ServiceState

PID = 4711


class Readings:
    """What the service has read: `used` is the configuration it runs with, `loads` one line for each reading."""

    def __init__(self) -> None:
        self.used: str | None = None
        self.loads: list[str] = []


class FakeReloadingService:
    """One agent's view of the service. `die` in a configuration ends it; one with `deaf` is not used."""

    def __init__(self, configuration: Path, readings: Readings, next_incarnation: Callable[[], str]) -> None:
        self._configuration = configuration
        self._readings = readings
        self._next_incarnation = next_incarnation
        self._incarnation: str | None = None

    def state(self) -> ServiceState:
        running = self._incarnation is not None
        return ServiceState("child", running, self._incarnation, {"pid": PID} if running else None)

    def start(self, deadline: float) -> ServiceState:
        if self._incarnation is None:
            self._incarnation = self._next_incarnation()
            self._load("start")
            if self._incarnation is None:
                raise ServiceError("The service was started, but ended at once.")
        return self.state()

    def stop(self, deadline: float) -> ServiceState:
        self._incarnation = None
        return self.state()

    def restart(self, deadline: float) -> ServiceState:
        self.stop(deadline)
        return self.start(deadline)

    def send_signal(self, pid: int, number: int) -> None:
        if self._incarnation is None or pid != PID:
            raise ProcessLookupError(3, "No such process")
        if number == signal.SIGHUP:
            self._load("reload")

    def _load(self, occasion: str) -> None:
        text = self._configuration.read_text() if self._configuration.exists() else ""
        self._readings.loads.append(f"{occasion} {text.strip()}")
        if "die" in text:
            self._incarnation = None
        elif "deaf" not in text:
            self._readings.used = text
