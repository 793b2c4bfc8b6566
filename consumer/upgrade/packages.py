"""Opens a package on the agent: its signature is verified first, and every unpacked file is checked."""

import errno
import uuid
from collections.abc import Iterable
from pathlib import Path

from broker.release.manifest import (
    ANY_PLATFORM,
    FILES,
    MAX_HEAD_BYTES,
    Manifest,
    PackagedFile,
    PackageError,
    check_contents,
    describe_file,
    opened_package,
    parse_manifest,
    read_head,
    this_platform,
)
from broker.release.minisign import MinisignError, PublicKey, verify_signature
from broker.system.files import free_bytes, sync_directory
from broker.system.trees import files_below, remove_tree, sync_tree
from consumer.errors import UpgradeError
from consumer.system.archives import Limits, unpack
from consumer.system.leftovers import Leftovers

__all__ = [
    "check_fits",
    "open_package",
    "unpack_package",
]


_BLOCK_BYTES = 4096  # the space that a small file takes on the disk
_SPARE_BYTES = 4 << 20


def open_package(package: Path, keys: Iterable[str]) -> Manifest:
    """Return the manifest of a package that one of the keys has signed; raises UpgradeError."""
    try:
        with opened_package(package) as archive:
            head = read_head(archive)
        verify_signature(head.manifest, head.signature, [PublicKey.parse(key) for key in keys])
        return parse_manifest(head.manifest)
    except (PackageError, MinisignError) as error:
        raise UpgradeError(f"The package is refused: {error}", code="package_refused") from error


def check_fits(manifest: Manifest, name: str, root: Path) -> None:
    """Raise UpgradeError for a package of another product or platform, or if there is too little space for it."""
    if manifest.name != name:
        raise UpgradeError(
            f"The package is for the product {manifest.name}; this agent accepts only {name} (upgrade.name).",
            code="wrong_product",
        )
    if manifest.platform not in (ANY_PLATFORM, this_platform()):
        raise UpgradeError(
            f"The package is for {manifest.platform}; this machine is {this_platform()}.", code="wrong_platform"
        )
    needed = sum(file.size + _BLOCK_BYTES for file in manifest.files.values()) + _SPARE_BYTES
    free = free_bytes(root)
    if needed > free:
        raise UpgradeError(
            f"There is too little space in {root}: the release needs {needed} bytes, {free} are free.", code="disk_full"
        )


def unpack_package(package: Path, manifest: Manifest, release: Path, leftovers: Leftovers) -> None:
    """Unpack a package's files into a release, durably and atomically; raises UpgradeError, ArchiveError, OSError.

    An existing release of the same name is replaced.
    """
    leftovers.remove_all(release.parent.glob(".*.part"))  # of attempts that were interrupted
    part = release.with_name(f".{release.name}-{uuid.uuid4().hex[:12]}.part")
    part.mkdir(mode=0o755)
    try:
        bound = manifest.size + sum(MAX_HEAD_BYTES.values())
        unpack(package, part, Limits(members=len(manifest.files) + len(MAX_HEAD_BYTES), bytes=bound))
        _check_files(manifest, part / FILES)
        sync_tree(part / FILES)
        _make_way(release, part / "replaced")
        (part / FILES).rename(release)
        sync_directory(release.parent)
    finally:
        leftovers.remove(part)


def _make_way(release: Path, aside: Path) -> None:
    try:
        release.rename(aside)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        remove_tree(release)  # a directory in a lower layer of an overlay cannot be renamed


def _check_files(manifest: Manifest, directory: Path) -> None:
    try:
        check_contents(manifest, {str(path.relative_to(directory)): _describe(path) for path in files_below(directory)})
    except PackageError as error:
        raise UpgradeError(f"The package is refused: {error}", code="package_refused") from error


def _describe(path: Path) -> PackagedFile:
    with path.open("rb") as source:
        return describe_file(source, executable=bool(path.stat().st_mode & 0o100))
