"""Files that are sent to the API and received from it, a piece at a time."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from broker.errors import InvalidArgument

__all__ = [
    "ArrivingFile",
    "OutgoingFile",
    "sha256_and_size",
]


_PIECE_BYTES = 1 << 18


def sha256_and_size(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file and its length in bytes. Raises InvalidArgument if it cannot be read."""
    with _reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


@dataclass(frozen=True)
class OutgoingFile:
    """A file that is sent; `seen` gets how many of its bytes have been sent, from zero if it is sent again.

    Reading it raises InvalidArgument if it cannot be read.
    """

    path: Path
    seen: Callable[[int], None] | None = None

    def pieces(self) -> Iterator[bytes]:
        """Yield its content."""
        with _reading(self.path), self.path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
                self._tell(file.tell())

    async def async_pieces(self) -> AsyncIterator[bytes]:
        """Yield its content; it is read in threads."""
        with _reading(self.path):
            file = await asyncio.to_thread(self.path.open, "rb")
            try:
                while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                    yield piece
                    self._tell(file.tell())
            finally:
                await asyncio.to_thread(file.close)

    def _tell(self, sent: int) -> None:
        if self.seen is not None:
            self.seen(sent)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}.", code="unreadable_file") from error


class ArrivingFile:
    """A file that is there under its name once it is whole, and not at all if the block ends before `finish`.

    Its methods raise InvalidArgument if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        except OSError as error:
            raise self._unwritable(error) from error
        self._file, self._part = os.fdopen(descriptor, "wb"), Path(name)
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # such as a full disk, which was reported already
            self._file.close()
        self._part.unlink(missing_ok=True)

    def add(self, piece: bytes) -> None:
        """Write what follows."""
        self._digest.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self, sha256: str) -> bool:
        """Give the file its name if it has this SHA-256; return whether it has."""
        if self._digest.hexdigest() != sha256:
            return False
        try:
            self._file.close()
            self._part.replace(self._path)
        except OSError as error:
            raise self._unwritable(error) from error
        return True

    def _unwritable(self, error: OSError) -> InvalidArgument:
        return InvalidArgument(f"{self._path} cannot be written: {error.strerror}.", code="unwritable_file")
