"""Durations: parsed in the form that users write, and shown to people."""

import re

from broker.errors import InvalidArgument

__all__ = [
    "has_duration_form",
    "parse_duration",
    "rough_duration",
]


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SHOWN = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "h"), (120.0, 60.0, "min"))
_MAX_S = 10 * 365 * 86400.0


def has_duration_form(text: str) -> bool:
    """Return whether a text is a number with or without a unit; it may still be out of range."""
    return _DURATION.fullmatch(text) is not None


def parse_duration(text: str) -> float:
    """Return a duration like `90`, `90s`, `1.5m`, `2h` or `7d` in seconds; raises InvalidArgument."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= _MAX_S:
        raise InvalidArgument(f"{text[:80]!r} is not a duration; write a number above 0 and s, m, h or d, as in 10m.")
    return seconds


def rough_duration(seconds: float) -> str:
    """Return a duration for people in its largest unit of which there are two at least, as in `45 s` and `29 days`."""
    for at_least, unit, name in _SHOWN:
        if seconds >= at_least:
            return f"{seconds // unit:.0f} {name}"
    return f"{max(seconds, 0.0):.0f} s"
