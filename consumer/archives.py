"""Unpacking an archive that nobody vouches for yet: plain files and directories only, bounded, inside one directory."""

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from consumer.errors import ArchiveError

__all__ = ["Limits", "is_archive", "unpack"]

_COPY_BYTES = 1 << 18
_EXECUTABLE = 0o100


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to: so many members, so many bytes in all."""

    members: int = 10_000
    bytes: int = 1 << 30


def is_archive(path: Path) -> bool:
    """Say whether a file looks like a tar archive, gzipped or not."""
    return tarfile.is_tarfile(path)


def unpack(archive: Path, into: Path, limits: Limits = Limits()) -> list[Path]:
    """Unpack a .tar or .tar.gz into an existing directory and return the files made, in the archive's order.

    Modes become 0755 for executables and directories, 0644 for the rest; owners and times are not taken over. Raises
    ArchiveError, and leaves what was unpacked so far, for a member that is no file or directory, or whose path is
    absolute, leaves the directory or comes twice, and for an archive that is damaged or beyond the limits.
    """
    made: list[Path] = []
    left = limits.bytes
    with _damage_named(archive), tarfile.open(archive, "r:*") as opened:
        for number, member in enumerate(opened, start=1):
            if number > limits.members:
                raise ArchiveError(f"{archive.name} holds more than {limits.members} members; that is too many.")
            path = into.joinpath(*_parts(member.name))
            if member.isdir():
                _make_directory(path)
                continue
            _refuse_what_is_no_file(member, path)
            left -= member.size
            if left < 0:
                raise ArchiveError(f"{archive.name} unpacks to more than {limits.bytes} bytes; that is too much.")
            _copy(opened, member, path)
            made.append(path)
    return made


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable() or "\\" in name:
        raise ArchiveError(f"The member {name[:200]!r} is refused: paths must stay inside the archive's directory.")
    return path.parts


def _refuse_what_is_no_file(member: tarfile.TarInfo, path: Path) -> None:
    if not member.isreg() or not PurePosixPath(member.name).parts:
        raise ArchiveError(
            f"The member {member.name[:200]!r} is refused: only plain files and directories are taken, "
            "no links and no devices."
        )
    if path.exists():
        raise ArchiveError(f"The member {member.name[:200]!r} comes twice.")


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ArchiveError(f"{path.name!r} is a file and a directory in the archive.") from error


def _copy(opened: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    _make_directory(path.parent)
    source = opened.extractfile(member)
    assert source is not None
    with source, path.open("xb") as target:
        while block := source.read(_COPY_BYTES):
            target.write(block)
    path.chmod(0o755 if member.mode & _EXECUTABLE else 0o644)


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, UnicodeError, ValueError) as error:
        raise ArchiveError(f"{archive.name} is no archive that can be read: {error}.") from error
    except OSError as error:
        raise ArchiveError(f"{archive.name} cannot be unpacked: {error.strerror or error}.") from error
