"""POSIX access control lists (acl(5)): rights of further users and groups, which a file's mode does not show.

With a list, the mode shows the list's mask in place of the group's rights. The kernel's format is that of
linux/posix_acl_xattr.h.
"""

import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = [
    "Acl",
    "AclEntry",
    "parse_acl",
    "read_acl",
]


_ATTRIBUTE = "system.posix_acl_access"
_VERSION = 2
_HEADER, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # version; tag, permissions, id
_USER, _GROUP_OBJ, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_NONE = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class AclEntry:
    """The effective permissions (of 7) of a named user or group."""

    kind: Literal["user", "group"]
    id: int
    permissions: int


@dataclass(frozen=True)
class Acl:
    """The effective permissions (of 7) of the owning group, and of each named user and group."""

    group: int
    named: tuple[AclEntry, ...]


def read_acl(path: Path) -> Acl | None:
    """Return the list of what is at `path`; None if it has none, or its file system has no lists. Raises OSError."""
    try:
        return parse_acl(os.getxattr(path, _ATTRIBUTE))
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise


def parse_acl(attribute: bytes) -> Acl:
    """Read the extended attribute of a list; raises OSError if its format is unknown."""
    body = attribute[_HEADER.size :]
    if attribute[: _HEADER.size] != _HEADER.pack(_VERSION) or len(body) % _ENTRY.size:
        raise OSError(errno.EINVAL, "its access control list is in an unknown format")
    entries = list(_ENTRY.iter_unpack(body))
    mask = next((permissions for tag, permissions, _ in entries if tag == _MASK), 7)
    group = next((permissions for tag, permissions, _ in entries if tag == _GROUP_OBJ), 0)
    users = (AclEntry("user", number, permissions & mask) for tag, permissions, number in entries if tag == _USER)
    groups = (AclEntry("group", number, permissions & mask) for tag, permissions, number in entries if tag == _GROUP)
    return Acl(group & mask, (*users, *groups))
