"""Files that are given as parameters: stored as blobs, which agents fetch."""

import hashlib
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from broker.cli.arguments import check_utf8
from broker.cli.progress import transfer_bar
from broker.contract.artifacts import blob_url
from broker.contract.messages import JsonObject
from broker.errors import InvalidArgument
from broker.fleet.blob_models import StoredBlob
from broker.fleet.blob_port import StoredBlobs
from broker.ledger.blob_errors import MAX_BLOB_BYTES, BlobTooLarge

__all__ = [
    "describe_files",
    "put_files",
    "store_file",
]


def store_file(blobs: StoredBlobs, file: Path, *, quiet: bool) -> StoredBlob:
    """Store a file as a blob, with a progress bar on a terminal unless `quiet`. Raises InvalidArgument."""
    size = _size_of(file)
    with transfer_bar(file.name, size, quiet=quiet) as seen:
        return blobs.store_blob(file, seen)


def put_files(put: Callable[[Path], StoredBlob], pairs: Iterable[str]) -> JsonObject:
    """Store the files given as KEY=FILE by `put`; return parameters that refer to them. Raises InvalidArgument."""
    return {key: msgspec.to_builtins(put(file)) for key, file in _files(pairs)}


def describe_files(pairs: Iterable[str]) -> JsonObject:
    """Return the parameters that `put_files` returns, and store nothing. Raises InvalidArgument."""
    return put_files(_described, pairs)


def _files(pairs: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for pair in pairs:
        key, equals, file = pair.partition("=")
        if not (key and equals and file):
            raise InvalidArgument(f"--file {pair[:80]!r} is not KEY=FILE.", code="not_key_file")
        check_utf8("A key of --file", key)
        yield key, Path(file)


def _size_of(file: Path) -> int:
    """Return the bytes of a file. Raises InvalidArgument for what cannot be read, or stored as a blob."""
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InvalidArgument(f"{file} is not a file; name one to store.", code="not_a_file")
        file.open("rb").close()
    except OSError as error:
        raise _unreadable(file, error) from error
    if found.st_size > MAX_BLOB_BYTES:
        raise BlobTooLarge(f"{file} has more than {MAX_BLOB_BYTES} bytes; offer it at an https: URL instead.")
    return found.st_size


def _described(file: Path) -> StoredBlob:
    _size_of(file)
    try:
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            return StoredBlob(blob_url(sha256), sha256, content.tell())
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> InvalidArgument:
    return InvalidArgument(f"{file} cannot be read: {error.strerror}.", code="unreadable_file")
