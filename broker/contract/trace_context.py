"""The trace context of a command: which trace it is part of, and which span has caused it.

It travels as the user properties `traceparent` and `tracestate` of MQTT messages, and as headers of HTTP requests
(https://www.w3.org/TR/trace-context/). It comes from anyone, so what is not valid is ignored, and never an error.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec

__all__ = [
    "TRACEPARENT",
    "TRACESTATE",
    "TraceContext",
]


TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
_MAX_PARENT = 256  # characters: later versions of the standard may add members
_MAX_STATE, _MAX_STATE_MEMBERS = 512, 32
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")
_STATE_MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,256}")
_VERSION, _NO_VERSION = "00", "ff"
_SAMPLED, _RANDOM = 1, 2


class TraceContext(msgspec.Struct, frozen=True):
    """A valid context: `traceparent` of version 00, and `tracestate`, empty without one."""

    traceparent: str
    tracestate: str = ""

    @classmethod
    def read(cls, pairs: Iterable[tuple[str, str]]) -> "TraceContext | None":
        """Return the context in names and values, as of user properties; None without a valid one."""
        found = [(name, value) for name, value in pairs if name in (TRACEPARENT, TRACESTATE)]
        parents = [value for name, value in found if name == TRACEPARENT]
        parent = _normal(parents[0]) if len(parents) == 1 else None
        if parent is None:
            return None
        return cls(parent, _valid_state(",".join(value for name, value in found if name == TRACESTATE)))

    @classmethod
    def of_text(cls, text: object) -> "TraceContext | None":
        """Return the context in what `text` has returned; None for anything else, such as from an altered row."""
        if not isinstance(text, str):
            return None
        parent, _, state = text.partition(" ")
        return cls.read([(TRACEPARENT, parent), (TRACESTATE, state)])

    @property
    def text(self) -> str:
        """The context as one text, to be stored."""
        return f"{self.traceparent} {self.tracestate}" if self.tracestate else self.traceparent

    @property
    def trace_id(self) -> str:
        """The id of the trace, 32 hexadecimal digits."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """The id of the span, 16 hexadecimal digits."""
        return self.traceparent[36:52]

    @property
    def flags(self) -> int:
        """The flags of the trace."""
        return int(self.traceparent[53:], 16)

    @property
    def is_sampled(self) -> bool:
        """Whether the trace is recorded."""
        return bool(self.flags & _SAMPLED)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield the names and values, as of user properties."""
        yield TRACEPARENT, self.traceparent
        if self.tracestate:
            yield TRACESTATE, self.tracestate


def _normal(parent: str) -> str | None:
    """Return a traceparent in version 00; None if it is not valid."""
    found = _PARENT.fullmatch(parent) if len(parent) <= _MAX_PARENT else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    is_known = version != _NO_VERSION and not (version == _VERSION and more)
    if not is_known or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return f"{_VERSION}-{trace_id}-{span_id}-{int(flags, 16) & (_SAMPLED | _RANDOM):02x}"


def _valid_state(state: str) -> str:
    """Return a tracestate, without spaces between its members; empty if it is not valid: the parent is enough."""
    if len(state) > _MAX_STATE:
        return ""
    members = [member for it in state.split(",") if (member := it.strip(" \t"))]
    is_valid = len(members) <= _MAX_STATE_MEMBERS and all(_STATE_MEMBER.fullmatch(it) for it in members)
    return ",".join(members) if is_valid else ""
