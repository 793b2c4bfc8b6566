"""Files that are given as parameters: stored as blobs, which agents fetch."""

import hashlib
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from broker.cli.arguments import check_utf8
from broker.contract.artifacts import Artifact, blob_url
from broker.contract.messages import JsonObject
from broker.errors import InvalidArgument

__all__ = [
    "describe_files",
    "put_files",
]


def put_files(put: Callable[[Path], Artifact], pairs: Iterable[str]) -> JsonObject:
    """Store the files given as KEY=FILE by `put`; return parameters that refer to them. Raises InvalidArgument."""
    return {key: msgspec.to_builtins(put(file)) for key, file in _files(pairs)}


def describe_files(pairs: Iterable[str]) -> JsonObject:
    """Return the parameters that `put_files` returns, and store nothing. Raises InvalidArgument."""
    return put_files(_artifact, pairs)


def _files(pairs: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for pair in pairs:
        key, equals, file = pair.partition("=")
        if not (key and equals and file):
            raise InvalidArgument(f"--file {pair[:80]!r} is not KEY=FILE.", code="not_key_file")
        check_utf8("A key of --file", key)
        yield key, Path(file)


def _artifact(file: Path) -> Artifact:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise InvalidArgument(f"{file} is not a file; name one to store.", code="not_a_file")
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            return Artifact(blob_url(sha256), sha256, content.tell())
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}.", code="unreadable_file") from error
