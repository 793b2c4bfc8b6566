"""The two forms of a log line: one JSON object, or text for a person at a terminal."""

import json
from typing import Any

from structlog.processors import LogfmtRenderer
from structlog.typing import EventDict, WrappedLogger

__all__ = [
    "console_line",
    "json_line",
]


_FIRST = ("timestamp", "level", "event")
_facts = LogfmtRenderer()


def json_line(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Return an event as a JSON object (RFC 8259) in ASCII, whatever the encoding of the stream is."""
    first = {name: event.pop(name) for name in _FIRST if name in event}
    return json.dumps({**first, **event}, separators=(",", ":"))


def console_line(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Return an event as its time, level and name, its facts as key=value, and under it, indented, an exception."""
    timestamp, level, name = (str(event.pop(it, "")) for it in _FIRST)
    exception = str(event.pop("exception", ""))
    facts = _facts(logger, method, event)
    line = f"{timestamp} {level:<8} {_in_one_line(name)}{' ' * bool(facts)}{facts}"
    return line + "".join(f"\n    {part}" for part in exception.splitlines())


def _in_one_line(text: Any) -> str:
    return " ".join(str(text).split())
