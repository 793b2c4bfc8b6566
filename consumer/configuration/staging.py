"""Stages a command's content in a directory next to the generations: one file, or the files of an archive."""

import hashlib
import uuid
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from broker.contract.commands.apply_centralized_configuration import ApplyCentralizedConfiguration
from consumer.errors import CentralizedConfigurationError
from consumer.system.archives import is_archive, refuse_other_archives, unpack
from consumer.system.leftovers import Leftovers

if TYPE_CHECKING:
    from consumer.system.downloads import Downloader

__all__ = [
    "Staging",
    "sha256_of",
]


_PREFIX = "staging"
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def sha256_of(wanted: ApplyCentralizedConfiguration) -> str:
    """Return the SHA-256 of the content as delivered; an artifact's is verified later, by its download."""
    if wanted.artifact is not None:
        return wanted.artifact.sha256
    return hashlib.sha256(_content(wanted)).hexdigest()


def _content(wanted: ApplyCentralizedConfiguration) -> bytes:
    assert wanted.content is not None
    try:
        return wanted.content.encode()
    except UnicodeEncodeError as error:
        raise CentralizedConfigurationError(
            f"The content cannot be encoded as UTF-8: {error.reason}.", code="invalid_text"
        ) from error


class Staging:
    """A directory in which a generation is prepared, in a `with` block. After a crash, its content is discarded."""

    def __init__(self, root: Path, leftovers: Leftovers) -> None:
        self._root = root
        self._leftovers = leftovers
        self._directory = root / f"{_PREFIX}-{uuid.uuid4().hex[:12]}"
        self.files = self._directory / "files"

    def clear(self) -> None:
        """Delete the files of this attempt and of earlier ones; what cannot be removed stops nothing."""
        self._leftovers.remove_all([*self._root.glob(f"{_PREFIX}-*"), self._root / _PREFIX])

    def __enter__(self) -> Self:
        self.clear()
        self._directory.mkdir(mode=0o700)
        self.files.mkdir()
        self.files.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def receive(self, wanted: ApplyCentralizedConfiguration, downloader: "Downloader") -> Path:
        """Return the file with the content, its size and hash verified; raises ConsumerError and OSError."""
        received = self._directory / "content"
        if wanted.artifact is not None:
            downloader.fetch(wanted.artifact, received)
        else:
            received.write_bytes(_content(wanted))
        return received

    def arrange(self, wanted: ApplyCentralizedConfiguration, received: Path, file: str) -> None:
        """Move the files into place: those of the archive, or the single file under the name `file`."""
        if wanted.artifact is not None and _is_packed(wanted.artifact.url, received):
            if not unpack(received, self.files):
                raise CentralizedConfigurationError("The archive contains no file.", code="empty_archive")
            received.unlink()
        else:
            if wanted.artifact is not None:
                refuse_other_archives(received, file)
            received.chmod(0o644)
            received.rename(self.files / file)


def _is_packed(url: str, received: Path) -> bool:
    if is_archive(received):
        return True
    has_suffix = PurePosixPath(urlsplit(url).path).name.lower().endswith(_ARCHIVE_SUFFIXES)
    if has_suffix:
        refuse_other_archives(received, ".gz")  # a damaged one is reported when it is unpacked
    return has_suffix
