"""Runs scripts one at a time, in a working directory laid out as Wazuh's scripts expect."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog

from broker.system.files import link_durably
from consumer.active_response.allow_list import AllowList
from consumer.errors import ActiveResponseError
from consumer.ports import Clock
from consumer.settings import ActiveResponseConfig, Confinement
from consumer.system.pidfile import PidFile
from consumer.system.process_group import OrphanedGroup
from consumer.system.programs import Bounds

__all__ = [
    "ScriptRunner",
]


_log = structlog.get_logger(__name__)
_POLL_INTERVAL_S = 0.02
_BIN = Path("active-response/bin")


class ScriptRunner:
    """Runs the agent's scripts; hold `exclusive` while one runs.

    Below `working_directory`, `active-response/bin` is a link to the directory of the scripts, and `logs` is a
    directory for their log files.
    """

    def __init__(self, config: ActiveResponseConfig, directory: Path, clock: Clock, confinement: Confinement) -> None:
        self._config = config
        self.confinement = confinement
        self._clock = clock
        # design.md: "Scripts run one at a time"
        self._lock = threading.Lock()
        self.working_directory = directory / "home"
        self.pid_file = PidFile(directory / "script.pid")
        self._orphan = OrphanedGroup(self.pid_file, clock, Bounds.grace_s, event="script_outlived_agent")

    @contextlib.contextmanager
    def exclusive(self, bounds: Bounds | None = None) -> Iterator[None]:
        """Hold the lock for running a script; first ends a script that outlived a killed agent.

        Raises ActiveResponseError if another script still runs when the bounds are reached.
        """
        while not self._lock.acquire(timeout=_POLL_INTERVAL_S):
            if bounds and (bounds.cancelled.is_set() or self._clock.monotonic() >= bounds.deadline):
                raise ActiveResponseError(
                    "Another script is still running; this one was not started.", code="script_running"
                )
        try:
            self._orphan.end(give_up_at=self._clock.monotonic() + 2 * Bounds.grace_s)
            yield
        finally:
            self._lock.release()

    def prepare(self) -> AllowList:
        """Return the allow-list after laying out `working_directory` for it; raises the errors of `AllowList.load`."""
        allow_list = AllowList.load(self._config)
        link, target = self.working_directory / _BIN, str(allow_list.directory.absolute())
        try:
            for place in (link.parent, self.working_directory / "logs"):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not link.is_symlink() or os.readlink(link) != target:
                link_durably(link, target)
        except OSError as error:
            raise ActiveResponseError(f"{self.working_directory} cannot be used: {error.strerror}.") from error
        return allow_list

    def deadline(self) -> float:
        """Return when (monotonic seconds) a script that starts now must have ended."""
        return self._clock.monotonic() + self._config.script_deadline_s

    @staticmethod
    def path_of(executable: str) -> str:
        """Return the path of a script, relative to `working_directory`."""
        return str(_BIN / executable)
