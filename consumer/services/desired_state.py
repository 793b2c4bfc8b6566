"""The desired state of the managed service, kept across restarts of the agent."""

from pathlib import Path

from broker.system.files import sync_directory

__all__ = [
    "DesiredState",
]


class DesiredState:
    """Whether the service should stay stopped; a file that outlives the agent's process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def stopped(self) -> bool:
        """Whether the last command was to stop the service."""
        return self._path.exists()

    def set_stopped(self, stopped: bool) -> None:
        """Record the desired state durably (fsync of the directory). Raises OSError."""
        if stopped:
            self._path.touch()
        else:
            self._path.unlink(missing_ok=True)
        sync_directory(self._path.parent)
