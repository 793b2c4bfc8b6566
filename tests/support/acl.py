"""Gives real files POSIX access control lists, as setfacl(1) does."""

import os
import struct
from pathlib import Path

__all__ = ["NAMED_GROUP", "NAMED_USER", "set_acl"]


NAMED_USER, NAMED_GROUP = 0x02, 0x08
_NO_ID = 0xFFFFFFFF


def set_acl(path: Path, kind: int, number: int, permissions: int, *, group: int = 0) -> None:
    """Grant a named user or group these permissions (of 7); `group` are those of the owning group.

    The mask, which the mode shows as the group's permissions, is the union of both.
    """
    mode = path.stat().st_mode
    entries = [
        (0x01, mode >> 6 & 7, _NO_ID),
        (NAMED_USER, permissions, number) if kind == NAMED_USER else None,
        (0x04, group, _NO_ID),
        (NAMED_GROUP, permissions, number) if kind == NAMED_GROUP else None,
        (0x10, permissions | group, _NO_ID),
        (0x20, mode & 7, _NO_ID),
    ]
    packed = (struct.pack("<HHI", *entry) for entry in entries if entry is not None)
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(packed))
