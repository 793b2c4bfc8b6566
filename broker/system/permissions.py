"""Refusing files that another user of the machine could change, and secrets that one could read.

The rules are those of ssh (StrictModes in sshd_config(5)): a user who can write to a directory above a file can
replace the file. An exposed file is refused and not repaired: a file that others could write to may have been changed
already, and a secret that could be read must be replaced. Access control lists count as modes do.
"""

import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.errors import ExposedFileError
from broker.system.posix_acl import AclEntry, read_acl

__all__ = [
    "refuse_changeable",
    "refuse_readable",
]


_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_READ, _WRITE, _EXECUTE = 4, 2, 1


@dataclass(frozen=True)
class _Rights:
    """Who may do what with a file or directory.

    With an access control list, `mode` has the rights of the owning group, in whose place st_mode shows the mask;
    `named` are the entries for further users and groups.
    """

    found: os.stat_result
    mode: int
    named: tuple[AclEntry, ...] = ()

    @classmethod
    def of(cls, place: Path, *, follow: bool = False) -> "_Rights":
        found = place.stat(follow_symlinks=follow)
        acl = None if stat.S_ISLNK(found.st_mode) else read_acl(place)
        if acl is None:
            return cls(found, found.st_mode)
        return cls(found, found.st_mode & ~stat.S_IRWXG | acl.group << 3, acl.named)

    @property
    def is_shared(self) -> bool:
        """Whether it is a directory such as /tmp, in which no user can replace the files of another."""
        return stat.S_ISDIR(self.mode) and bool(self.mode & stat.S_ISVTX)

    def others_write(self, *, strictly: bool) -> bool:
        """Whether the owning group or everybody may write; not strictly, a group of the owner alone may."""
        others = self.mode & _OTHERS_WRITE
        if strictly or not others:
            return bool(others)
        if self.is_shared:
            return False
        return bool(others & stat.S_IWOTH) or not _has_only_the_owner(self.found.st_gid, self.found.st_uid)

    def entry_that_writes(self, trusted: Collection[int], *, strictly: bool) -> AclEntry | None:
        """Return the entry of another user or group that may write, or None."""
        if self.is_shared and not strictly:
            return None
        writers = [entry for entry in self.named if entry.permissions & _WRITE and not _is_trusted(entry, trusted)]
        if not strictly:
            writers = [entry for entry in writers if not _is_group_of(entry, self.found.st_uid)]
        return next(iter(writers), None)

    def entry_that_reads(self, trusted: Collection[int]) -> AclEntry | None:
        """Return the entry of another user or group that may read, or None."""
        reads = (entry for entry in self.named if entry.permissions & (_READ | _EXECUTE))
        return next((entry for entry in reads if not _is_trusted(entry, trusted)), None)


def _is_trusted(entry: AclEntry, trusted: Collection[int]) -> bool:
    return entry.kind == "user" and entry.id in trusted


def _is_group_of(entry: AclEntry, uid: int) -> bool:
    return entry.kind == "group" and _has_only_the_owner(entry.id, uid)


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
        rights = _Rights.of(place)
        if rights.found.st_uid not in trusted:
            accepted_owners = dict.fromkeys((0, os.geteuid()))
            raise ExposedFileError(
                f"{place} belongs to user {_user(rights.found.st_uid)}, who could change it; "
                f"it must belong to {' or to '.join(map(_user, accepted_owners))}: run `chown`.",
                code="owned_by_another_user",
            )
        if not stat.S_ISLNK(rights.mode):
            _refuse_writable(place, rights, trusted, strictly=place in (path.absolute(), last))


def _refuse_writable(place: Path, rights: _Rights, trusted: Collection[int], *, strictly: bool) -> None:
    if rights.others_write(strictly=strictly):
        if rights.is_shared:  # such as /tmp: other programs need its mode
            raise ExposedFileError(
                f"{place} is a directory that every user of the machine shares (mode {_mode(rights)}): "
                "use a directory of its own.",
                code="shared_directory",
            )
        raise ExposedFileError(
            f"{place} can be written by others than its owner (mode {_mode(rights)}): check that it was not "
            f"changed, then run `chmod go-w {place}`.",
            code="writable_by_others",
        )
    entry = rights.entry_that_writes(trusted, strictly=strictly)
    if entry is not None:
        raise ExposedFileError(
            f"{place} can be written by others than its owner, by its access control list ({_in_full(entry)}): check "
            f"that it was not changed, then run `setfacl -x {_named(entry)} {place}`.",
            code="writable_by_acl",
        )


def refuse_readable(path: Path, *, owners: Collection[int] = ()) -> None:
    """Raise ExposedFileError if another user could read or change the secret in a file; OSError as above.

    The group of a file that root owns may read it, as in /etc/ssl/private.
    """
    rights = _Rights.of(path, follow=True)
    allowed = stat.S_IRGRP if rights.found.st_uid == 0 else 0
    if rights.mode & _OTHERS & ~_OTHERS_WRITE & ~allowed:
        raise ExposedFileError(
            f"{path} holds a secret and can be read by others than its owner (mode {_mode(rights)}): "
            f"run `chmod 0600 {path}`, and replace the secret if another user may have read it.",
            code="readable_by_others",
        )
    refuse_changeable(path, owners=owners)
    entry = rights.entry_that_reads({0, os.geteuid(), rights.found.st_uid, *owners})
    if entry is not None:
        raise ExposedFileError(
            f"{path} holds a secret and can be read by others than its owner, by its access control list "
            f"({_in_full(entry)}): run `setfacl -x {_named(entry)} {path}`, and replace the secret if another user may "
            "have read it.",
            code="readable_by_acl",
        )


def _with_parents_and_links(path: Path) -> Iterator[Path]:
    """Yield the path, every directory above it, and the same of what each link on the way points to."""
    for place in (path, *path.parents):
        yield place
        if place.is_symlink():
            yield from _with_parents_and_links(place.parent / place.readlink())


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


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _named(entry: AclEntry) -> str:
    """Return the entry as setfacl(1) names it."""
    return f"{entry.kind}:{_user(entry.id) if entry.kind == 'user' else _group(entry.id)}"


def _in_full(entry: AclEntry) -> str:
    """Return the entry as getfacl(1) shows it, with its effective permissions."""
    letters = "".join(
        letter if entry.permissions & bit else "-" for letter, bit in (("r", _READ), ("w", _WRITE), ("x", _EXECUTE))
    )
    return f"{_named(entry)}:{letters}"


def _mode(rights: _Rights) -> str:
    return f"{stat.S_IMODE(rights.found.st_mode):04o}"
