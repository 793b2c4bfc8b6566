"""The limits of frames and messages on each channel: one table, which the codec enforces on each frame it decodes.

What we send is within the limits: `truncated` cuts texts and lists. design.md: "One table of limits"
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from broker.contract.messages import (
    Ack,
    BlobChunk,
    BlobRequest,
    Command,
    Control,
    Feedback,
    Origin,
    Output,
    PendingReversal,
    Status,
)
from broker.contract.topics import Channel

__all__ = [
    "CHANNEL_OF",
    "ECHO_DEPTH",
    "LIMITS",
    "LISTS",
    "MAX_DEPTH",
    "MAX_FRAME_BYTES",
    "MAX_ID_LENGTH",
    "MAX_NUMBER",
    "MAX_REVERSALS",
    "MAX_SIGNED_FRAME_BYTES",
    "MAX_TIMEOUT_S",
    "NAMES",
    "TEXTS",
    "FrameLimits",
    "ListLimits",
    "truncated",
]


MAX_FRAME_BYTES = 262144
# A frame of messages of this length still fits into a frame once it is signed: with its scope, in base64.
MAX_SIGNED_FRAME_BYTES = 190_000
MAX_DEPTH = 32
MAX_ID_LENGTH = 128
MAX_REVERSALS = 50  # in one status
MAX_NUMBER = 2**53 - 1  # exact in every JSON parser (RFC 8259 section 6)
MAX_TIMEOUT_S = 7 * 86400.0  # selectors and threads refuse timeouts of some weeks
ECHO_DEPTH = 2  # levels that a feedback and its frame add around the echoed command
_CUT = "…"
_M = TypeVar("_M", Feedback, Output, Status, PendingReversal)


@dataclass(frozen=True)
class FrameLimits:
    """Maxima of a frame: bytes, messages in an array, and levels of objects and arrays."""

    frame_bytes: int
    messages: int
    depth: int


@dataclass(frozen=True)
class ListLimits:
    """Maxima of a list of texts, or of an object's keys: items, and characters in each."""

    items: int
    characters: int


LIMITS: Mapping[Channel, FrameLimits] = MappingProxyType(
    {
        Channel.COMMAND: FrameLimits(MAX_FRAME_BYTES, 500, MAX_DEPTH),
        Channel.CONTROL: FrameLimits(1 << 16, 500, 4),
        Channel.ACK: FrameLimits(1 << 16, 500, 4),
        Channel.FEEDBACK: FrameLimits(MAX_FRAME_BYTES, 500, MAX_DEPTH + ECHO_DEPTH),
        Channel.STATUS: FrameLimits(1 << 16, 1, 8),
        Channel.BLOB_REQUEST: FrameLimits(1 << 12, 8, 4),
        Channel.BLOB_CHUNK: FrameLimits(3 << 16, 8, 4),
    }
)
CHANNEL_OF: Mapping[type, Channel] = MappingProxyType(
    {
        Command: Channel.COMMAND,
        Control: Channel.CONTROL,
        Ack: Channel.ACK,
        Feedback: Channel.FEEDBACK,
        Status: Channel.STATUS,
        BlobRequest: Channel.BLOB_REQUEST,
        BlobChunk: Channel.BLOB_CHUNK,
    }
)
# Members of 1 to MAX_ID_LENGTH printable characters, if present.
NAMES: Mapping[type, tuple[str, ...]] = MappingProxyType(
    {
        Command: ("id", "type"),
        Control: ("command_id",),
        Ack: ("command_id", "digest"),
        Feedback: ("agent", "store_generation", "incarnation", "command_id", "digest"),
        Status: (
            "agent",
            "version",
            "incarnation",
            "boot_id",
            "store_generation",
            "running_command",
            "enrolment_id",
            "answers",
        ),
        PendingReversal: ("script", "command_id"),
    }
)
# The maximum number of characters of other texts.
TEXTS: Mapping[type, Mapping[str, int]] = MappingProxyType(
    {
        Origin: {"name": 256, "module": 256},
        Feedback: {"status": 32, "message": 4096},
        Output: {"stdout": 1 << 16, "stderr": 1 << 16},
        Status: {"last_error": 2048},
        BlobChunk: {"error": 1024},
    }
)
# Lists of texts; of an object, its keys.
LISTS: Mapping[type, Mapping[str, ListLimits]] = MappingProxyType(
    {
        Command: {"parameters": ListLimits(256, 256), "notes": ListLimits(100, 1024)},
        Feedback: {"data": ListLimits(1024, 1024), "notes": ListLimits(128, 1024)},
        Status: {
            "supported_types": ListLimits(256, MAX_ID_LENGTH),
            "groups": ListLimits(64, 63),
            "problems": ListLimits(64, 64),
            "service": ListLimits(16, MAX_ID_LENGTH),
        },
        PendingReversal: {"keys": ListLimits(8, 120)},
    }
)


def truncated(message: _M) -> _M:
    """Return the message with its texts and lists of texts cut to their limits; the same message if they fit."""
    changes: dict[str, Any] = {}
    for name, limit in TEXTS.get(type(message), {}).items():
        text = getattr(message, name)
        if text is not None and len(text) > limit:
            changes[name] = _cut(text, limit)
    for name, limits in LISTS.get(type(message), {}).items():
        texts = getattr(message, name)
        if isinstance(texts, tuple) and not _fits(texts, limits):
            changes[name] = tuple(_cut(text, limits.characters) for text in texts[: limits.items])
    return replace(message, **changes) if changes else message


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def _fits(texts: tuple[str, ...], limits: ListLimits) -> bool:
    return len(texts) <= limits.items and max(map(len, texts), default=0) <= limits.characters
