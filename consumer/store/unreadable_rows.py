"""Rows of commands that the disk has altered: logged once each, and named in the agent's status."""

import structlog

__all__ = ["UnreadableRows"]


_log = structlog.get_logger(__name__)


class UnreadableRows:
    """What was found since this process has opened the store. The other rows are not affected."""

    def __init__(self) -> None:
        self._found: dict[str, str | None] = {}

    def note(self, key: str, command_id: str | None, reason: str) -> str:
        """Note a row that cannot be used; return a sentence for its command's result."""
        if key not in self._found:
            self._found[key] = command_id
            _log.error("row_unreadable", row=key, command_id=command_id, reason=reason)
        return "The agent's record of this command was damaged on its disk."

    @property
    def sentence(self) -> str | None:
        """What was found, or None."""
        if not self._found:
            return None
        named = ", ".join(sorted({command_id for command_id in self._found.values() if command_id})) or "unknown"
        return f"Records of commands were damaged on the agent's disk ({named}): check the disk."
