"""The package that an agent upgrades itself with: a gzipped tar archive of a signed manifest and the files it names.

Its members, in this order: `manifest.json`, `manifest.json.minisig`, and each file below `files/`, plain files only.
The signature is minisign's, of the manifest's bytes; the manifest holds the SHA-256 of every file.
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
    "PackageHead",
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
MAX_HEAD_BYTES = {MANIFEST: 16 << 20, SIGNATURE: 1 << 14}  # the most that each may have


class PackageError(BrokerError):
    """A package is not one, is damaged, or holds something else than its manifest says."""


@dataclass(frozen=True)
class PackagedFile:
    """One file of a package; `size` in bytes."""

    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0)]
    executable: bool


@dataclass(frozen=True)
class Manifest:
    """What a package is and holds. `platform` is such as linux-x86_64, or `any`; `files` by their path.

    `self_test` is the program of the package, and its arguments, that says whether this release works on a machine.
    """

    format: Literal[1]
    name: Name
    version: str
    platform: Name
    files: dict[str, PackagedFile]
    self_test: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = SELF_TEST

    @property
    def size(self) -> int:
        """How many bytes its files have in all."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True)
class PackageHead:
    """The first two members of a package, not yet believed."""

    manifest: bytes
    signature: str


def this_platform() -> str:
    """Return the platform of this machine, as a manifest names it."""
    return f"{platform.system()}-{platform.machine()}".lower()


def render_manifest(manifest: Manifest) -> bytes:
    """Return the bytes to be signed; the same for the same manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest and check that it can be used; raises PackageError."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
        parse_version(manifest.version)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidVersion) as error:
        raise PackageError(f"The package's manifest is wrong: {str(error).rstrip('.')}.") from error
    for path in manifest.files:
        if not _is_safe(path):
            raise PackageError(f"The package's manifest names {path[:200]!r}, which does not stay inside the package.")
    for program in (PROGRAM, manifest.self_test[0]):
        if program not in manifest.files or not manifest.files[program].executable:
            raise PackageError(f"The package has no program {program}; it must be there and be executable.")
    return manifest


def _is_safe(path: str) -> bool:
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts)


@contextmanager
def opened_package(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a package, nothing of which is believed yet; raises PackageError, also for what it turns out to be later."""
    with _damage_named(path.name), tarfile.open(path, "r:gz", tarinfo=BoundedHeader) as archive:
        yield archive


def read_head(archive: tarfile.TarFile) -> PackageHead:
    """Read the first two members; raises PackageError, and what tarfile raises for a damaged archive."""
    return PackageHead(_first(archive, MANIFEST), _first(archive, SIGNATURE).decode("utf-8", errors="replace"))


def _first(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.next()
    if member is None or member.name != name or not member.isreg() or member.size > MAX_HEAD_BYTES[name]:
        raise PackageError(f"This is no package: {name} is not where it belongs.")
    source = archive.extractfile(member)
    assert source is not None
    with source:
        return source.read()


def describe_file(source: IO[bytes], *, executable: bool) -> PackagedFile:
    """Read a file to its end and say what it is."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(1 << 18):
        digest.update(block)
        size += len(block)
    return PackagedFile(digest.hexdigest(), size, executable)


def check_contents(manifest: Manifest, found: Mapping[str, PackagedFile]) -> None:
    """Raise PackageError unless the files found, by their path, are those of the manifest, all of them and no other."""
    for path in sorted(manifest.files.keys() | found.keys()):
        if path not in found:
            raise PackageError(f"The file {path} of the manifest is not in the package.")
        if path not in manifest.files:
            raise PackageError(f"The package holds {path}, which its manifest does not name.")
        if found[path] != manifest.files[path]:
            raise PackageError(
                f"The file {path} of the package is not the one of its manifest; its SHA-256 is {found[path].sha256}."
            )


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Turn what is raised for a damaged archive into a PackageError."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise PackageError(f"{name} is no package that can be read: {error}.") from error
    except OSError as error:
        raise PackageError(f"{name} cannot be read: {error.strerror or error}.") from error
