"""Builds the package of a directory, and verifies one as an agent would. The same directory gives the same bytes."""

import gzip
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from broker.release.bounded_tar import MAX_DEPTH
from broker.release.manifest import (
    FILES,
    MANIFEST,
    SELF_TEST,
    SIGNATURE,
    Manifest,
    PackagedFile,
    PackageError,
    check_contents,
    describe_file,
    opened_package,
    parse_manifest,
    read_head,
    render_manifest,
)
from broker.release.minisign import PublicKey, Signature, verify_signature
from broker.system.trees import paths_below
from broker.text import printable_line

__all__ = [
    "SigningFailed",
    "VerifiedPackage",
    "make_manifest",
    "sign_manifest",
    "verify_package",
    "write_package",
]


_EXCLUDED = "__pycache__"  # Python writes it again, with content that differs each time


class SigningFailed(PackageError):
    """The minisign tool is missing or did not sign."""

    code = "signing_failed"


@dataclass(frozen=True)
class VerifiedPackage:
    """A package whose signature and files were verified."""

    manifest: Manifest
    signature: Signature
    file: PackagedFile
    """The package itself: the size and the SHA-256 for a command."""


def make_manifest(
    directory: Path, name: str, version: str | None, platform: str, self_test: Sequence[str] = SELF_TEST
) -> Manifest:
    """Return the manifest of all files below a directory; raises PackageError if they cannot be a package.

    `version` defaults to that of the Python distribution of this name in the directory.
    """
    files = {str(path.relative_to(directory)): _describe(path) for path in _plain_files(directory)}
    version = version or _version_in(directory, name)
    return parse_manifest(render_manifest(Manifest(1, name, version, platform, files, tuple(self_test))))


def _version_in(directory: Path, name: str) -> str:
    prefix, suffix = f"{name.replace('-', '_')}-", ".dist-info"
    found = [
        path.name for path in paths_below(directory) if path.name.startswith(prefix) and path.name.endswith(suffix)
    ]
    if len(found) != 1:
        raise PackageError(
            f"{directory} has {len(found)} distributions of {name}; give --version.", code="no_distribution"
        )
    return found[0].removeprefix(prefix).removesuffix(suffix)


def _plain_files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise PackageError(
            f"{directory} is not a directory; give the one that contains bin/acm-agent.", code="no_directory"
        )
    found = [path for path in paths_below(directory) if _EXCLUDED not in path.relative_to(directory).parts]
    for path in found:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise PackageError(
                f"{path} is not a plain file; a package has plain files only, no links and no devices.",
                code="not_a_plain_file",
            )
        name = path.relative_to(directory)
        if len(name.parts) >= MAX_DEPTH or not str(name).isprintable():
            raise PackageError(
                f"{printable_line(str(path), 300)} would be refused by every agent: names have printable characters of "
                f"UTF-8, and are less than {MAX_DEPTH} directories deep.",
                code="unusable_name",
            )
    return [path for path in found if path.is_file()]


def _describe(path: Path) -> PackagedFile:
    with _file_errors_as_package_errors(path), path.open("rb") as source:
        return describe_file(source, executable=bool(path.stat().st_mode & 0o100))


def sign_manifest(manifest: bytes, secret_key: Path | None) -> str:
    """Sign the manifest with the minisign tool, and return the text of the signature file.

    The tool prompts for the key's password. None means its default key. Raises SigningFailed.
    """
    with tempfile.TemporaryDirectory(prefix="acm-package-") as directory:
        path, signature = Path(directory, MANIFEST), Path(directory, SIGNATURE)
        path.write_bytes(manifest)
        chosen = ["-s", str(secret_key)] if secret_key else []
        argv = ["minisign", "-S", "-m", str(path), "-x", str(signature), *chosen]
        try:
            done = subprocess.run(argv, stdout=sys.stderr, check=False)
        except OSError as error:
            raise SigningFailed(
                f"minisign cannot be run ({error.strerror}); install it, or give --signature.", code="minisign_missing"
            ) from error
        if done.returncode or not signature.exists():
            raise SigningFailed("minisign did not sign the package; its output is above.", code="not_signed")
        return signature.read_text(encoding="utf-8")


def write_package(directory: Path, manifest: Manifest, signature: str, output: Path) -> None:
    """Write the package, replacing the output only once it is complete. Raises PackageError."""
    part = output.with_name(f".{output.name}.part")
    try:
        with _file_errors_as_package_errors(output), part.open("wb") as target:
            _write(directory, manifest, signature, target)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def _write(directory: Path, manifest: Manifest, signature: str, target: BinaryIO) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in ((MANIFEST, render_manifest(manifest)), (SIGNATURE, signature.encode())):
            archive.addfile(_member(name, len(content)), io.BytesIO(content))
        for path, file in sorted(manifest.files.items()):
            with (directory / path).open("rb") as source:
                archive.addfile(_member(f"{FILES}/{path}", file.size, executable=file.executable), source)


def _member(name: str, size: int, *, executable: bool = False) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # its owner is 0 and its time is 0
    member.size = size
    member.mode = 0o755 if executable else 0o644
    return member


def verify_package(path: Path, keys: Sequence[PublicKey]) -> VerifiedPackage:
    """Verify a package's signature and each of its files; raises PackageError or MinisignError."""
    with opened_package(path) as archive:
        head = read_head(archive)
        signature = verify_signature(head.manifest, head.signature, keys)
        manifest = parse_manifest(head.manifest)
        check_contents(manifest, dict(_members(archive)))
    return VerifiedPackage(manifest, signature, _describe(path))


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, PackagedFile]]:
    names: set[str] = set()
    for member in islice(archive, 2, None):
        prefix, _, path = member.name.partition("/")
        if prefix != FILES or not member.isreg() or path in names:
            raise PackageError(
                f"The member {member.name[:200]!r} is not a plain file below {FILES}/, or is a duplicate.",
                code="unexpected_member",
            )
        names.add(path)
        source = archive.extractfile(member)
        assert source is not None
        yield path, describe_file(source, executable=bool(member.mode & 0o100))


@contextmanager
def _file_errors_as_package_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PackageError(f"{error.filename or path}: {error.strerror}.", code="unreadable") from error
