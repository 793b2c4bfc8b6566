"""Refusing files that another user of the machine could change, and secrets that one could read.

The rules are those of ssh (StrictModes in sshd_config(5)): a user who can write to a directory above a file can
replace the file. An exposed file is refused and not repaired: a file that others could write to may have been changed
already, and a secret that could be read must be replaced.
"""

import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from broker.errors import ExposedFileError

__all__ = [
    "refuse_changeable",
    "refuse_readable",
]


_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def refuse_changeable(path: Path, *, owners: Collection[int] = ()) -> None:
    """Raise ExposedFileError if another user could change what is at `path`; OSError if that cannot be determined.

    The file or directory, all directories above it, and all links on the way must belong to root, to our user or to
    one of `owners` (user ids), and no other user may have write permission. Directories above it may be sticky, such
    as /tmp, or writable by a group whose only member is the owner.
    """
    path.stat()  # raises OSError for a loop of links, which would not be noticed below
    last = path.resolve()
    trusted = {0, os.geteuid(), *owners}
    for place in _with_parents_and_links(path.absolute()):
        found = place.lstat()
        if found.st_uid not in trusted:
            accepted_owners = dict.fromkeys((0, os.geteuid()))
            raise ExposedFileError(
                f"{place} belongs to user {_user(found.st_uid)}, who could change it; "
                f"it must belong to {' or to '.join(map(_user, accepted_owners))}: run `chown`.",
                code="owned_by_another_user",
            )
        if not stat.S_ISLNK(found.st_mode) and _others_write(found, strictly=place in (path.absolute(), last)):
            if _is_shared(found):  # such as /tmp: other programs need its mode
                raise ExposedFileError(
                    f"{place} is a directory that every user of the machine shares (mode {_mode(found)}): "
                    "use a directory of its own.",
                    code="shared_directory",
                )
            raise ExposedFileError(
                f"{place} can be written by others than its owner (mode {_mode(found)}): check that it was not "
                f"changed, then run `chmod go-w {place}`.",
                code="writable_by_others",
            )


def refuse_readable(path: Path, *, owners: Collection[int] = ()) -> None:
    """Raise ExposedFileError if another user could read or change the secret in a file; OSError as above.

    The group of a file that root owns may read it, as in /etc/ssl/private.
    """
    found = path.stat()
    allowed = stat.S_IRGRP if found.st_uid == 0 else 0
    if found.st_mode & _OTHERS & ~_OTHERS_WRITE & ~allowed:
        raise ExposedFileError(
            f"{path} holds a secret and can be read by others than its owner (mode {_mode(found)}): "
            f"run `chmod 0600 {path}`, and replace the secret if another user may have read it.",
            code="readable_by_others",
        )
    refuse_changeable(path, owners=owners)


def _with_parents_and_links(path: Path) -> Iterator[Path]:
    """Yield the path, every directory above it, and the same of what each link on the way points to."""
    for place in (path, *path.parents):
        yield place
        if place.is_symlink():
            yield from _with_parents_and_links(place.parent / place.readlink())


def _others_write(found: os.stat_result, *, strictly: bool) -> bool:
    others = found.st_mode & _OTHERS_WRITE
    if strictly or not others:
        return bool(others)
    if _is_shared(found):
        return False
    return bool(others & stat.S_IWOTH) or not _has_only_the_owner(found.st_gid, found.st_uid)


def _is_shared(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX)


def _has_only_the_owner(gid: int, uid: int) -> bool:
    """Return whether the owner is the only member; many systems give each user such a group, and umask 002."""
    try:
        owner, members = pwd.getpwuid(uid), grp.getgrgid(gid).gr_mem
    except KeyError:
        return False
    by_account = {account.pw_uid for account in pwd.getpwall() if account.pw_gid == gid}
    return by_account == {uid} and set(members) <= {owner.pw_name}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"
