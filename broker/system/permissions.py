"""Who else could change or read a file that we live by. Both packages ask here, and refuse what others could change.

The rules are those of ssh (StrictModes in sshd_config(5)): whoever can write to a directory above a file can put
another in its place. Each function looks and returns a sentence, or None; it changes nothing.
"""

import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = [
    "changed_by_others",
    "read_by_others",
]


_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def changed_by_others(path: Path, *, owners: Collection[int] = ()) -> str | None:
    """Say in one sentence how another user could change what is at `path`, and what to do; None: nobody else could.

    The file or directory, all directories above it, and all links on the way must belong to root, to our user or to
    one of `owners` (user ids), and nobody else may write to them. Above it a sticky directory such as /tmp is good,
    and one whose group has its owner alone. Raises OSError when it cannot be looked at.
    """
    path.stat()  # a link that leads round in a circle is an OSError here, and would be none below
    last = path.resolve()
    trusted = {0, os.geteuid(), *owners}
    for place in _way_to(path.absolute()):
        found = place.lstat()
        if found.st_uid not in trusted:
            rightful = dict.fromkeys((0, os.geteuid()))
            return (
                f"{place} belongs to user {_user(found.st_uid)}, who could change it; "
                f"it must belong to {' or to '.join(map(_user, rightful))}: run `chown`."
            )
        if not stat.S_ISLNK(found.st_mode) and _others_write(found, strictly=place in (path.absolute(), last)):
            return (
                f"{place} can be written by others than its owner (mode {_mode(found)}), so look whether it was; "
                f"then run `chmod go-w {place}`."
            )
    return None


def read_by_others(path: Path, *, owners: Collection[int] = ()) -> str | None:
    """Say in one sentence how another user could read or change the secret in a file; None: nobody else could.

    A file of root's may be read by its group, as /etc/ssl/private has them. Raises OSError.
    """
    found = path.stat()
    allowed = stat.S_IRGRP if found.st_uid == 0 else 0
    if found.st_mode & _OTHERS & ~_OTHERS_WRITE & ~allowed:
        return (
            f"{path} holds a secret and can be read by others than its owner (mode {_mode(found)}): "
            f"run `chmod 0600 {path}`, and replace the secret if somebody may have read it."
        )
    return changed_by_others(path, owners=owners)


def _way_to(path: Path) -> Iterator[Path]:
    """Yield the path, every directory above it, and the same of what each link on the way points to."""
    for place in (path, *path.parents):
        yield place
        if place.is_symlink():
            yield from _way_to(place.parent / place.readlink())


def _others_write(found: os.stat_result, *, strictly: bool) -> bool:
    others = found.st_mode & _OTHERS_WRITE
    if strictly or not others:
        return bool(others)
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return False
    return bool(others & stat.S_IWOTH) or not _is_owners_alone(found.st_gid, found.st_uid)


def _is_owners_alone(gid: int, uid: int) -> bool:
    """Whether a group has no other member: many systems give each user one, and let it write (umask 002)."""
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
