"""The user's wish that the managed service stay stopped, kept across restarts of the agent."""

from pathlib import Path

from broker.system.files import sync_directory

__all__ = [
    "DesiredState",
]


class DesiredState:
    """Remembers, across restarts of the agent, that the service is to stay stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def stopped(self) -> bool:
        """Whether the user's last wish was a stopped service."""
        return self._path.exists()

    def set_stopped(self, stopped: bool) -> None:
        """Keep the wish durably (fsync of the directory)."""
        if stopped:
            self._path.touch()
        else:
            self._path.unlink(missing_ok=True)
        sync_directory(self._path.parent)
