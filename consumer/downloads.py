"""Fetching the file that a command refers to: bounded in size and time, believed only when size and hash are right."""

import errno
import hashlib
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from broker.contract.artifacts import Artifact, blob_url
from consumer.config import DownloadConfig
from consumer.errors import DownloadError
from consumer.files import free_bytes
from consumer.partial_files import partial_file
from consumer.ports import Blobs, Clock

__all__ = ["Downloader"]

_BLOCK_BYTES = 1 << 18
_QUIET_S = 15.0  # a server that says nothing for so long is given up
_SPARE_BYTES = 4 << 20


class _WrongFile(DownloadError):
    """What has come is another file than the one that was meant."""


@dataclass(frozen=True)
class Downloader:
    """Fetches artifacts for one command; handlers get theirs from `Context.downloader()`.

    `deadline` is in seconds of the clock's `monotonic()`. What has come of a `blob:` artifact when a download ends
    early stays in the directory `partial`, and the next download of it goes on from there.
    """

    config: DownloadConfig
    clock: Clock
    deadline: float
    cancelled: threading.Event
    blobs: Blobs | None = None
    partial: Path | None = None

    def fetch(self, artifact: Artifact, to: Path) -> None:
        """Write the artifact to `to`, fsynced. Raises DownloadError with what was wrong; then `to` is not there."""
        if artifact.size > self.config.max_bytes:
            raise DownloadError(
                f"The file has {artifact.size} bytes; this agent takes at most {self.config.max_bytes} "
                "(download.max_bytes)."
            )
        try:
            if artifact.url.startswith("blob:") and self.partial is not None:
                self._collect(artifact, partial_file(self.partial, artifact.sha256), to)
            else:
                self._complete(artifact, to)
        except OSError as error:
            to.unlink(missing_ok=True)
            raise DownloadError(f"{_shown(artifact.url)} cannot be fetched: {error.strerror or error}.") from error
        except BaseException:
            to.unlink(missing_ok=True)
            raise

    def _collect(self, artifact: Artifact, part: Path, to: Path) -> None:
        """Go on with the part that is there, from the start when that proves damaged; move the whole to its place."""
        have = min(part.stat().st_size, artifact.size) if part.exists() else 0
        try:
            self._complete(artifact, part, have)
        except _WrongFile:
            part.unlink()
            if not have:
                raise
            self._complete(artifact, part)
        try:
            part.replace(to)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._complete(replace(artifact, url=part.absolute().as_uri()), to)
            part.unlink()

    def _complete(self, artifact: Artifact, to: Path, have: int = 0) -> None:
        """Write what follows the first `have` bytes of the file `to`, and check the whole."""
        if artifact.size - have + _SPARE_BYTES > free_bytes(to.parent):
            raise DownloadError(f"There is too little space in {to.parent} for the file's {artifact.size} bytes.")
        size = have
        with to.open("a+b") as target, self._blocks(artifact, have) as blocks:
            target.truncate(have)
            target.seek(0)
            digest = hashlib.file_digest(target, "sha256")
            for block in blocks:
                size += len(block)
                if size > artifact.size:
                    raise _WrongFile(f"The file at {_shown(artifact.url)} is longer than {artifact.size} bytes.")
                digest.update(block)
                target.write(block)
                target.flush()
                self._check_time(artifact.url)
            os.fsync(target.fileno())
        if size < artifact.size:
            raise _WrongFile(f"The file at {_shown(artifact.url)} has {size} bytes, not {artifact.size}.")
        if digest.hexdigest() != artifact.sha256:
            raise _WrongFile(
                f"The file at {_shown(artifact.url)} is another than the one that was meant: "
                f"its SHA-256 is {digest.hexdigest()}."
            )

    @contextmanager
    def _blocks(self, artifact: Artifact, have: int) -> Iterator[Iterator[bytes]]:
        url = artifact.url
        scheme = urlsplit(url).scheme
        try:
            if scheme == "https":
                with self._client() as client, client.stream("GET", url) as response:
                    _check_answer(response, url)
                    yield response.iter_bytes(_BLOCK_BYTES)
            elif scheme == "file":
                with _local_path(url).open("rb") as source:
                    yield iter(lambda: source.read(_BLOCK_BYTES), b"")
            elif scheme == "blob" and self.blobs is not None:
                if url != blob_url(artifact.sha256):
                    raise DownloadError(f"{_shown(url)} names another file than the SHA-256 {artifact.sha256}.")
                with closing(self.blobs.read(artifact.sha256, have, artifact.size)) as blocks:
                    yield blocks
            else:
                raise DownloadError(f"{_shown(url)} cannot be fetched: write an https:, file: or blob: URL.")
        except httpx.HTTPError as error:
            raise DownloadError(f"{_shown(url)} cannot be fetched: {error or type(error).__name__}.") from error
        except httpx.InvalidURL as error:
            raise DownloadError(f"{_shown(url)} is not a URL: {error}.") from error

    def _client(self) -> httpx.Client:
        left = max(0.1, min(_QUIET_S, self.deadline - self.clock.monotonic()))
        hooks = {"request": [_refuse_plain_http]}
        trust = ssl.create_default_context(cafile=self.config.ca_file)
        return httpx.Client(verify=trust, timeout=left, follow_redirects=True, max_redirects=5, event_hooks=hooks)

    def _check_time(self, url: str) -> None:
        if self.cancelled.is_set():
            raise DownloadError(f"The download of {_shown(url)} was cancelled.")
        if self.clock.monotonic() >= self.deadline:
            raise DownloadError(f"The download of {_shown(url)} did not end in time.")


def _refuse_plain_http(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise httpx.UnsupportedProtocol(f"it leads to {request.url.scheme}:, which is not encrypted")


def _check_answer(response: httpx.Response, url: str) -> None:
    if response.status_code != httpx.codes.OK:
        raise DownloadError(f"{_shown(url)} cannot be fetched: the server answered {response.status_code}.")


def _local_path(url: str) -> Path:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not path.is_file():
        raise DownloadError(f"{_shown(url)} is no plain file on this machine.")
    return path


def _shown(url: str) -> str:
    """Return the URL without user, password, query and fragment, which may be secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:300]
