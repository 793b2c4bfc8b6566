"""What paho logs and tells nobody: the error that ended a connection."""

from collections.abc import Callable

__all__ = ["PahoErrors"]


class PahoErrors:
    """Takes the place of paho's logger, and remembers the last error that it was given.

    `packet` returns the packet that paho is reading, from its first byte on, without its length. A `logging.Logger`
    would make a record of each packet; this costs one call.
    """

    def __init__(self, packet: Callable[[], bytes]) -> None:
        self.last: Exception | None = None
        self.malformed: bytes | None = None  # the packet that cannot be read, if that is the error
        self._packet = packet

    def log(self, level: int, message: str, *arguments: object) -> None:
        """Keep an error among the arguments of a log line."""
        if not arguments or not isinstance(arguments[-1], Exception):
            return
        if "malformed" in message:
            self.malformed = self._packet()
        self.note(arguments[-1])

    def note(self, error: Exception) -> None:
        """Remember this error, unless another one came before it: the first one is the cause."""
        self.last = self.last or error

    def clear(self) -> None:
        """Forget the error, as before a new connection."""
        self.last = self.malformed = None
