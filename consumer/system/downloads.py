"""Fetching the file that a command refers to: bounded in size and time, believed only when size and hash are right."""

import contextlib
import errno
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from broker.contract.artifacts import Artifact, blob_url
from broker.system.files import free_bytes
from consumer.errors import DownloadError
from consumer.ports import Blobs, Clock
from consumer.settings import DownloadConfig
from consumer.system.partial_files import partial_file

__all__ = [
    "Downloader",
]


_BLOCK_BYTES = 1 << 18
_READ_TIMEOUT_S = 15.0  # a server that says nothing for so long is given up
_SPARE_BYTES = 4 << 20
_POLL_INTERVAL_S = 0.1  # how soon a cancel, or the end of the time, is seen
_NO_ENCODING = {"Accept-Encoding": "identity"}


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
        except BaseException as error:
            to.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise DownloadError(f"The file cannot be written to {to}: {error.strerror or error}.") from error
            raise

    def _collect(self, artifact: Artifact, part: Path, to: Path) -> None:
        """Go on with the part that is there, from the start when that proves damaged; move the whole to its place."""
        offset = min(part.stat().st_size, artifact.size) if part.exists() else 0
        try:
            self._complete(artifact, part, offset)
        except _WrongFile:
            part.unlink()
            if not offset:
                raise
            self._complete(artifact, part)
        try:
            part.replace(to)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._complete(replace(artifact, url=part.absolute().as_uri()), to)
            part.unlink()

    def _complete(self, artifact: Artifact, to: Path, offset: int = 0) -> None:
        """Write what follows the first `offset` bytes of the file `to`, and check the whole."""
        if artifact.size - offset + _SPARE_BYTES > free_bytes(to.parent):
            raise DownloadError(f"There is too little space in {to.parent} for the file's {artifact.size} bytes.")
        size, url_shown = offset, _display_url(artifact.url)
        with to.open("a+b") as target, closing(self._blocks(artifact, offset)) as blocks:
            target.truncate(offset)
            target.seek(0)
            digest = hashlib.file_digest(target, "sha256")
            for block in blocks:
                size += len(block)
                if size > artifact.size:
                    raise _WrongFile(f"The file at {url_shown} is longer than {artifact.size} bytes.")
                digest.update(block)
                target.write(block)
                target.flush()
                self._check_time(url_shown)
            os.fsync(target.fileno())
        self._check_whole(artifact, size, digest.hexdigest())

    def _check_whole(self, artifact: Artifact, size: int, sha256: str) -> None:
        url_shown = _display_url(artifact.url)
        if size < artifact.size:
            self._check_time(url_shown)
            raise _WrongFile(f"The file at {url_shown} has {size} bytes, not {artifact.size}.")
        if sha256 != artifact.sha256:
            raise _WrongFile(
                f"The file at {url_shown} is another than the one that was meant: its SHA-256 is {sha256}."
            )

    def _blocks(self, artifact: Artifact, offset: int) -> Generator[bytes, None, None]:
        url, url_shown = artifact.url, _display_url(artifact.url)
        try:
            match urlsplit(url).scheme:
                case "https":
                    yield from self._blocks_of_response(url)
                case "file":
                    with _local_path(url).open("rb") as source:
                        yield from iter(lambda: source.read(_BLOCK_BYTES), b"")
                case "blob" if self.blobs is not None:
                    if url != blob_url(artifact.sha256):
                        raise DownloadError(f"{url_shown} names another file than the SHA-256 {artifact.sha256}.")
                    yield from self.blobs.read(artifact.sha256, offset, artifact.size)
                case _:
                    raise DownloadError(f"{url_shown} cannot be fetched: write an https:, file: or blob: URL.")
        except httpx.HTTPError as error:
            self._check_time(url_shown)
            raise DownloadError(f"{url_shown} cannot be fetched: {error or type(error).__name__}.") from error
        except httpx.InvalidURL as error:
            raise DownloadError(f"{url_shown} is not a URL: {error}.") from error
        except OSError as error:
            raise DownloadError(f"{url_shown} cannot be fetched: {error.strerror or error}.") from error

    def _blocks_of_response(self, url: str) -> Iterator[bytes]:
        # Raw and block by block as it arrives: what the hash is of, and soon enough to see that the time is over.
        with (
            _Watchdog(self) as watchdog,
            self._client() as client,
            client.stream("GET", url, headers=_NO_ENCODING, extensions={"trace": watchdog.trace}) as response,
        ):
            _check_response(response, url)
            yield from response.iter_raw()

    def _client(self) -> httpx.Client:
        left = max(0.1, min(_READ_TIMEOUT_S, self.deadline - self.clock.monotonic()))
        hooks = {"request": [_refuse_plain_http]}
        return httpx.Client(
            verify=self._trust(), timeout=left, follow_redirects=True, max_redirects=5, event_hooks=hooks
        )

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.config.ca_file)
        except OSError as error:
            raise DownloadError(
                f"The certificate authorities in {self.config.ca_file} (download.ca_file) cannot be used: "
                f"{error.strerror or error}."
            ) from error

    def is_over(self) -> bool:
        """Say whether the download must end: its time is over, or its command was cancelled."""
        return self.cancelled.is_set() or self.clock.monotonic() >= self.deadline

    def _check_time(self, url_shown: str) -> None:
        if self.cancelled.is_set():
            raise DownloadError(f"The download of {url_shown} was cancelled.")
        if self.is_over():
            raise DownloadError(f"The download of {url_shown} did not end in time.")


class _Watchdog:
    """Cuts a download's connections when it must end: a server that says little, or nothing, would hold it up."""

    def __init__(self, download: Downloader) -> None:
        self._download = download
        self._sockets: list[socket.socket] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="acm-download", daemon=True)

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of each encrypted connection (httpx calls this a trace extension)."""
        if event == "connection.start_tls.complete":
            self._sockets.append(info["return_value"].get_extra_info("socket"))

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_INTERVAL_S):
            if self._download.is_over():
                for connection in list(self._sockets):
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # the reader owns the TLS above it

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _refuse_plain_http(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise httpx.UnsupportedProtocol(f"it leads to {request.url.scheme}:, which is not encrypted")


def _check_response(response: httpx.Response, url: str) -> None:
    if response.status_code != httpx.codes.OK:
        raise DownloadError(f"{_display_url(url)} cannot be fetched: the server answered {response.status_code}.")


def _local_path(url: str) -> Path:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not path.is_file():
        raise DownloadError(f"{_display_url(url)} is no plain file on this machine.")
    return path


def _display_url(url: str) -> str:
    """Return the URL without user, password, query and fragment, which may be secret."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"The file's URL cannot be read: {error}.") from None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:300]
