"""Identifiers of commands: UUIDs of version 7, which sort by creation time."""

import secrets
import time
import uuid

__all__ = [
    "new_id",
]


def new_id() -> str:
    """Return a new UUIDv7 (RFC 9562 section 5.7) as text: 48 bits of milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    bits = (milliseconds & (1 << 48) - 1) << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=bits & ~(0x3 << 62) | 0x2 << 62))
