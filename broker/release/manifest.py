"""The format of upgrade packages: a gzipped tar archive with a signed manifest and the files that it lists.

Members, in this order: `manifest.json`, `manifest.json.minisig`, and each file below `files/`, plain files only. The
signature is minisign's, over the manifest's bytes; the manifest has the SHA-256 of each file.
design.md: "Packages are signed by minisign"
"""

import hashlib
import platform
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Literal

import msgspec

from broker.contract.fields import Name, Sha256
from broker.errors import BrokerError
from broker.release.bounded_tar import BoundedHeader
from broker.release.versions import InvalidVersion, parse_version

__all__ = [
    "ANY_PLATFORM",
    "FILES",
    "MANIFEST",
    "MAX_HEAD_BYTES",
    "PROGRAM",
    "SELF_TEST",
    "SIGNATURE",
    "Manifest",
    "PackageError",
    "PackagedFile",
    "check_contents",
    "describe_file",
    "opened_package",
    "parse_manifest",
    "read_head",
    "render_manifest",
    "this_platform",
]


MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.minisig"
FILES = "files"
PROGRAM = "bin/acm-agent"
SELF_TEST = (PROGRAM, "self-test")
ANY_PLATFORM = "any"
MAX_HEAD_BYTES = {MANIFEST: 16 << 20, SIGNATURE: 1 << 14}  # of each member before the files


class PackageError(BrokerError):
    """A file is not a package, is damaged, or its files are not those of its manifest."""

    code = "package_error"


@dataclass(frozen=True)
class PackagedFile:
    """One file of a package; `size` in bytes."""

    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0)]
    executable: bool


@dataclass(frozen=True)
class Manifest:
    """The manifest of a package. `platform` is one like `linux-x86_64`, or `any`; `files` are by path.

    `self_test` is the program in the package, with its arguments, that checks whether the release works on a machine.
    """

    format: Literal[1]
    name: Name
    version: str
    platform: Name
    files: dict[str, PackagedFile]
    self_test: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = SELF_TEST

    @property
    def size(self) -> int:
        """The total size of its files in bytes."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True)
class PackageHead:
    """The first two members of a package, not yet verified."""

    manifest: bytes
    signature: str


def this_platform() -> str:
    """Return the platform of this machine as in a manifest, for example `linux-x86_64`."""
    return f"{platform.system()}-{platform.machine()}".lower()


def render_manifest(manifest: Manifest) -> bytes:
    """Return the bytes to be signed; deterministic."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def parse_manifest(content: bytes) -> Manifest:
    """Return the manifest, checked; raises PackageError."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
        parse_version(manifest.version)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidVersion) as error:
        raise PackageError(
            f"The package's manifest is invalid: {str(error).rstrip('.')}.", code="invalid_manifest"
        ) from error
    for path in manifest.files:
        if not _is_safe(path):
            raise PackageError(
                f"The package's manifest lists {path[:200]!r}, which is outside the package.", code="unsafe_path"
            )
    for program in (PROGRAM, manifest.self_test[0]):
        if program not in manifest.files or not manifest.files[program].executable:
            raise PackageError(f"The package has no executable program {program}.", code="program_missing")
    return manifest


def _is_safe(path: str) -> bool:
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts)


@contextmanager
def opened_package(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a package, not yet verified. Raises PackageError, also for damage found while the block reads it."""
    with _damage_as_package_error(path.name), tarfile.open(path, "r:gz", tarinfo=BoundedHeader) as archive:
        yield archive


def read_head(archive: tarfile.TarFile) -> PackageHead:
    """Return the first two members; raises PackageError, and the errors of tarfile for a damaged archive."""
    return PackageHead(_first(archive, MANIFEST), _first(archive, SIGNATURE).decode("utf-8", errors="replace"))


def _first(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.next()
    if member is None or member.name != name or not member.isreg() or member.size > MAX_HEAD_BYTES[name]:
        raise PackageError(f"This is not a package: {name} is missing or in the wrong place.", code="not_a_package")
    source = archive.extractfile(member)
    assert source is not None
    with source:
        return source.read()


def describe_file(source: IO[bytes], *, executable: bool) -> PackagedFile:
    """Read a file to its end; return its SHA-256 and size."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(1 << 18):
        digest.update(block)
        size += len(block)
    return PackagedFile(digest.hexdigest(), size, executable)


def check_contents(manifest: Manifest, found: Mapping[str, PackagedFile]) -> None:
    """Raise PackageError unless the files found, by path, are exactly those of the manifest."""
    for path in sorted(manifest.files.keys() | found.keys()):
        if path not in found:
            raise PackageError(f"The file {path} of the manifest is not in the package.", code="file_missing")
        if path not in manifest.files:
            raise PackageError(f"The package has {path}, which its manifest does not list.", code="file_unlisted")
        if found[path] != manifest.files[path]:
            raise PackageError(
                f"The file {path} of the package differs from its manifest; its SHA-256 is {found[path].sha256}.",
                code="file_differs",
            )


@contextmanager
def _damage_as_package_error(name: str) -> Iterator[None]:
    """Turn the errors of a damaged archive into PackageError."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise PackageError(f"{name} is not a readable package: {error}.", code="not_a_package") from error
    except OSError as error:
        raise PackageError(f"{name} cannot be read: {error.strerror or error}.", code="unreadable") from error
