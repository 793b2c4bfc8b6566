"""Downloads the file that a command refers to: limited in size and time, verified by size and SHA-256."""

import contextlib
import errno
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from broker.contract.artifacts import Artifact, blob_url
from broker.system.files import free_bytes, inodes_named
from broker.system.threads import start_thread_within
from consumer.errors import DownloadError
from consumer.ports import Blobs, Clock
from consumer.settings import DownloadConfig
from consumer.system.https import https_client
from consumer.system.leftovers import Leftovers
from consumer.system.partial_files import partial_file
from consumer.system.progress import HandlerProgress

__all__ = [
    "Downloader",
]


_PHASE = "download"
_BLOCK_BYTES = 1 << 18
_READ_TIMEOUT_S = 15.0  # a server that sends nothing for this long has failed
_SPARE_BYTES = 4 << 20
_POLL_INTERVAL_S = 0.1  # how soon a cancel or the deadline is noticed
_NO_ENCODING = {"Accept-Encoding": "identity"}


class _WrongFile(DownloadError):
    """The received file differs from the artifact."""


@dataclass(frozen=True)
class Downloader:
    """Fetches artifacts for one command; handlers get theirs from `Context.downloader()`.

    `deadline` is in seconds of the clock's `monotonic()`. The received part of a `blob:` artifact
    stays in the directory `partial` when a download ends early, and the next download continues from there.
    """

    config: DownloadConfig
    clock: Clock
    deadline: float
    cancelled: threading.Event
    blobs: Blobs | None = None
    partial: Path | None = None
    leftovers: Leftovers = field(default_factory=Leftovers)
    progress: HandlerProgress = field(default_factory=HandlerProgress)

    def fetch(self, artifact: Artifact, to: Path) -> None:
        """Write the artifact to `to`, fsynced. Raises DownloadError, and then `to` does not exist."""
        if artifact.size > self.config.max_bytes:
            raise DownloadError(
                f"The file has {artifact.size} bytes; this agent accepts at most {self.config.max_bytes} "
                "(download.max_bytes).",
                code="too_large",
            )
        try:
            with inodes_named(to.parent):
                self._fetch(artifact, to)
        except BaseException as error:
            to.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise DownloadError(
                    f"The file cannot be written to {to}: {error.strerror or error}.", code="not_written"
                ) from error
            raise

    def _fetch(self, artifact: Artifact, to: Path) -> None:
        if artifact.url.startswith("blob:") and self.partial is not None:
            self._collect(artifact, partial_file(self.partial, artifact.sha256, self.leftovers), to)
        else:
            self._complete(artifact, to)

    def _collect(self, artifact: Artifact, part: Path, to: Path) -> None:
        """Continue from the received part, or restart if that is damaged; then move the file into place."""
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
        """Append to the first `offset` bytes of the file `to`, and verify the whole file."""
        if artifact.size - offset + _SPARE_BYTES > free_bytes(to.parent):
            raise DownloadError(
                f"There is too little space in {to.parent} for the file's {artifact.size} bytes.", code="disk_full"
            )
        size, url_shown = offset, _display_url(artifact.url)
        with to.open("a+b") as target, closing(self._blocks(artifact, offset)) as blocks:
            target.truncate(offset)
            target.seek(0)
            digest = hashlib.file_digest(target, "sha256")
            for block in blocks:
                size += len(block)
                if size > artifact.size:
                    raise _WrongFile(
                        f"The file at {url_shown} is longer than {artifact.size} bytes.", code="file_too_long"
                    )
                digest.update(block)
                target.write(block)
                target.flush()
                self.progress.report(_PHASE, size, artifact.size)
                self._check_time(url_shown)
            os.fsync(target.fileno())
        self._check_whole(artifact, size, digest.hexdigest())

    def _check_whole(self, artifact: Artifact, size: int, sha256: str) -> None:
        url_shown = _display_url(artifact.url)
        if size < artifact.size:
            self._check_time(url_shown)
            raise _WrongFile(f"The file at {url_shown} has {size} bytes, not {artifact.size}.", code="file_too_short")
        if sha256 != artifact.sha256:
            raise _WrongFile(
                f"The file at {url_shown} differs from the one in the command: its SHA-256 is {sha256}.",
                code="wrong_sha256",
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
                        raise DownloadError(
                            f"{url_shown} does not name the file with the SHA-256 {artifact.sha256}.",
                            code="wrong_blob_name",
                        )
                    yield from self.blobs.read(artifact.sha256, offset, artifact.size)
                case _:
                    raise DownloadError(
                        f"{url_shown} cannot be fetched: write an https:, file: or blob: URL.", code="unknown_scheme"
                    )
        except httpx.HTTPError as error:
            self._check_time(url_shown)
            raise DownloadError(
                f"{url_shown} cannot be fetched: {error or type(error).__name__}.", code="http_failed"
            ) from error
        except httpx.InvalidURL as error:
            raise DownloadError(f"{url_shown} is not a URL: {error}.", code="invalid_url") from error
        except OSError as error:
            raise DownloadError(
                f"{url_shown} cannot be fetched: {error.strerror or error}.", code="not_readable"
            ) from error

    def _blocks_of_response(self, url: str) -> Iterator[bytes]:
        # Raw blocks as they arrive: the hash is of those, and the deadline is noticed between them.
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
        return https_client(self._trust(), left, follow_redirects=True, max_redirects=5, event_hooks=hooks)

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.config.ca_file)
        except OSError as error:
            raise DownloadError(
                f"The certificate authorities in {self.config.ca_file} (download.ca_file) cannot be used: "
                f"{error.strerror or error}.",
                code="ca_file_unusable",
            ) from error

    def is_over(self) -> bool:
        """Return whether the download must end: its deadline has passed, or its command was cancelled."""
        return self.cancelled.is_set() or self.clock.monotonic() >= self.deadline

    def _check_time(self, url_shown: str) -> None:
        if self.cancelled.is_set():
            raise DownloadError(f"The download of {url_shown} was cancelled.", code="cancelled")
        if self.is_over():
            raise DownloadError(f"The download of {url_shown} did not end in time.", code="timed_out")


class _Watchdog:
    """Closes a download's connections when it must end, so that a slow or silent server cannot delay it."""

    def __init__(self, download: Downloader) -> None:
        self._download = download
        self._sockets: list[socket.socket] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember each encrypted connection (a trace extension of httpx)."""
        if event == "connection.start_tls.complete":
            self._sockets.append(info["return_value"].get_extra_info("socket"))

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_INTERVAL_S):
            if self._download.is_over():
                for connection in list(self._sockets):
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # the reader owns the TLS above it

    def __enter__(self) -> Self:
        self._thread = start_thread_within(self._watch, "acm-download", self._pause)
        if self._thread is None:
            raise DownloadError("The machine had no thread for the download until its end.", code="no_thread")
        return self

    def _pause(self, seconds: float) -> bool:
        return self._download.cancelled.wait(seconds) or self._download.is_over()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()


def _refuse_plain_http(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise httpx.UnsupportedProtocol(f"it redirects to {request.url.scheme}:, which is not encrypted")


def _check_response(response: httpx.Response, url: str) -> None:
    if response.status_code != httpx.codes.OK:
        raise DownloadError(
            f"{_display_url(url)} cannot be fetched: the server answered with status {response.status_code}.",
            code="http_status",
        )


def _local_path(url: str) -> Path:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not path.is_file():
        raise DownloadError(f"{_display_url(url)} is not a regular file on this machine.", code="not_a_file")
    return path


def _display_url(url: str) -> str:
    """Return the URL without user, password, query and fragment, which may be secret; raises DownloadError."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        # A `#` or `?` in a password ends the host before it: the password's head would be looked up, and shown.
        if "@" in parts.fragment or (not parts.path and "@" in parts.query):
            raise ValueError
    except ValueError:  # its text may quote the password
        raise DownloadError(
            "The file's URL cannot be read: in a password write `#` as %23, `?` as %3F and `/` as %2F, an IPv6 address "
            "in brackets, and a port from 1 to 65535.",
            code="invalid_url",
        ) from None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:300]
