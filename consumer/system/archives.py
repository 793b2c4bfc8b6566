"""Unpacks an untrusted archive: regular files and directories only, within limits, inside one directory."""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from broker.release.bounded_tar import MAX_DEPTH, BoundedHeader, MemberRefused, not_a_plain_file
from broker.system.files import inodes_named
from consumer.errors import ArchiveError
from consumer.system.archive_kinds import BEGINNING_BYTES, kind_of

__all__ = [
    "Limits",
    "is_archive",
    "refuse_other_archives",
    "unpack",
]


_COPY_BYTES = 1 << 18
_KEPT, _OWNER_FILE, _OWNER_DIRECTORY = 0o755, 0o400, 0o700
_GZIP = b"\x1f\x8b"
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_MOST_ZEROS = 1 << 21  # tar fills up its last record
_MODE_AT, _MODE = 100, re.compile(rb"[0-7 ]{6,7}[\0 ]")  # behind the name, which is filled up with zeros


@dataclass(frozen=True)
class Limits:
    """How many members an archive may have, and how many bytes in total it may unpack to."""

    members: int = 10_000
    bytes: int = 1 << 30


def is_archive(path: Path) -> bool:
    """Return whether a file begins like a tar archive, gzipped or not; raises OSError if it cannot be read."""
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
        file.seek(0)
        content = gzip.GzipFile(fileobj=file) if zipped else file
        try:
            beginning = content.read(tarfile.BLOCKSIZE)
            if beginning == bytes(tarfile.BLOCKSIZE):  # the end of an archive, here of no file
                return not content.read(_MOST_ZEROS).strip(b"\0")
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False
    try:
        tarfile.TarInfo.frombuf(beginning, tarfile.ENCODING, "surrogateescape")
    except tarfile.TarError:
        return _is_damaged_header(beginning)
    return True


def _is_damaged_header(beginning: bytes) -> bool:
    """Return whether a block that cannot be read as a header was one before it was damaged or cut short."""
    is_cut = len(beginning) < tarfile.BLOCKSIZE and beginning[_MODE_AT - 1 : _MODE_AT] == b"\0"
    return beginning[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC) or (is_cut and _MODE.match(beginning, _MODE_AT) is not None)


def refuse_other_archives(path: Path, name: str) -> None:
    """Raise ArchiveError if a file that is not a tar archive is an archive or a compressed file of another kind.

    It may be one if it is to be stored under a `name` with an ending of that kind. Raises OSError.
    """
    with path.open("rb") as file:
        kind = kind_of(file.read(BEGINNING_BYTES), name)
    if kind is not None:
        raise ArchiveError(
            f"The artifact is {kind}; send a tar or tar.gz archive, or a single file.", code="unsupported_archive"
        )


def unpack(archive: Path, into: Path, limits: Limits = Limits()) -> list[Path]:
    """Unpack a .tar or .tar.gz into an existing directory and return the files made, in the archive's order.

    Files and directories have the modes of the archive without set-id bits and writing by others (`& 0755`), so they
    are never more open than packed; their owner may always read them. Owners and times are not restored. Raises
    ArchiveError, and leaves what was unpacked so far, for a member that is not a regular file or directory, or whose
    path is absolute, leaves the directory, is too deep or is a duplicate, and for a damaged archive or one beyond the
    limits.
    """
    made: list[Path] = []
    modes: dict[Path, int] = {}  # of directories, set at the end, since files must be made in them
    left = limits.bytes
    with _damage_named(archive), inodes_named(into), _opened(archive) as opened:
        for number, member in enumerate(opened, start=1):
            if number > limits.members:
                raise ArchiveError(
                    f"{archive.name} has more than {limits.members} members, the limit.",
                    code="too_many_members",
                )
            parts = _parts(member.name)
            if member.isdir():
                _make_directories(into, parts)
                modes[into.joinpath(*parts)] = member.mode & _KEPT | _OWNER_DIRECTORY
                continue
            if not member.isreg() or not parts:
                raise not_a_plain_file(member.name)
            left -= max(member.size, 0)
            if left < 0:
                raise ArchiveError(
                    f"{archive.name} unpacks to more than {limits.bytes} bytes, the limit.", code="too_large"
                )
            _make_directories(into, parts[:-1])
            _copy(opened, member, into.joinpath(*parts))
            made.append(into.joinpath(*parts))
        _read_to_the_end(opened, left)
        for directory, mode in modes.items():
            if directory != into:
                directory.chmod(mode)
    return made


def _read_to_the_end(opened: tarfile.TarFile, most: int) -> None:
    """Read the rest, because gzip verifies its checksum at the end."""
    assert opened.fileobj is not None
    while block := opened.fileobj.read(_COPY_BYTES):
        most -= len(block)
        if most < 0:
            raise ArchiveError("There is too much data after the end-of-archive marker.", code="too_much_after_end")


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    with archive.open("rb") as file:
        zipped = file.read(2) == _GZIP
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz" if zipped else "r:", tarinfo=BoundedHeader) as opened:
            yield opened


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable() or "\\" in name:
        raise ArchiveError(
            f"The member {name[:200]!r} is refused: paths must stay inside the archive's directory.", code="unsafe_path"
        )
    if len(path.parts) > MAX_DEPTH:
        raise ArchiveError(
            f"The member {name[:200]!r} is more than {MAX_DEPTH} directories deep, the limit.", code="too_deep"
        )
    return path.parts


def _make_directories(into: Path, parts: Sequence[str]) -> None:
    place = into
    for name in parts:
        place /= name
        try:
            place.mkdir()
        except FileExistsError as error:
            if place.is_dir():
                continue
            raise ArchiveError(
                f"{'/'.join(parts)!r} is both a file and a directory in the archive.", code="file_and_directory"
            ) from error
        place.chmod(0o755)


def _copy(opened: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = opened.extractfile(member)
    assert source is not None
    try:
        with source, path.open("xb") as target:
            while block := source.read(_COPY_BYTES):
                target.write(block)
    except (FileExistsError, IsADirectoryError) as error:
        raise ArchiveError(
            f"The member {member.name[:200]!r} appears twice in the archive.", code="duplicate_member"
        ) from error
    path.chmod(member.mode & _KEPT | _OWNER_FILE)


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except MemberRefused as error:
        raise ArchiveError(str(error), code="member_refused") from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{archive.name} is not a readable archive: {error}.", code="damaged") from error
    except OSError as error:
        raise ArchiveError(
            f"{archive.name} cannot be unpacked: {error.strerror or error}.", code="not_unpacked"
        ) from error
