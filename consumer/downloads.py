"""Fetching the file that a command refers to: bounded in size and time, believed only when size and hash are right."""

import hashlib
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from broker.contract.artifacts import Artifact
from consumer.config import DownloadConfig
from consumer.errors import DownloadError
from consumer.files import free_bytes
from consumer.ports import Clock

__all__ = ["Downloader"]

_BLOCK_BYTES = 1 << 18
_QUIET_S = 15.0  # a server that says nothing for so long is given up
_SPARE_BYTES = 4 << 20


@dataclass(frozen=True)
class Downloader:
    """Fetches artifacts for one command. `deadline` is in seconds of the clock's `monotonic()`."""

    config: DownloadConfig
    clock: Clock
    deadline: float
    cancelled: threading.Event

    def fetch(self, artifact: Artifact, to: Path) -> None:
        """Write the artifact to `to`, fsynced. Raises DownloadError with what was wrong; then `to` is not there."""
        if artifact.size > self.config.max_bytes:
            raise DownloadError(
                f"The file has {artifact.size} bytes; this agent takes at most {self.config.max_bytes} "
                "(download.max_bytes)."
            )
        if artifact.size + _SPARE_BYTES > free_bytes(to.parent):
            raise DownloadError(f"There is too little space in {to.parent} for the file's {artifact.size} bytes.")
        try:
            self._copy(artifact, to)
        except BaseException:
            to.unlink(missing_ok=True)
            raise

    def _copy(self, artifact: Artifact, to: Path) -> None:
        digest, size = hashlib.sha256(), 0
        with to.open("wb") as target, self._blocks(artifact.url) as blocks:
            for block in blocks:
                size += len(block)
                if size > artifact.size:
                    raise DownloadError(f"The file at {_shown(artifact.url)} is longer than {artifact.size} bytes.")
                digest.update(block)
                target.write(block)
                self._check_time(artifact.url)
            target.flush()
            os.fsync(target.fileno())
        if size < artifact.size:
            raise DownloadError(f"The file at {_shown(artifact.url)} has {size} bytes, not {artifact.size}.")
        if digest.hexdigest() != artifact.sha256:
            raise DownloadError(
                f"The file at {_shown(artifact.url)} is another than the one that was meant: "
                f"its SHA-256 is {digest.hexdigest()}."
            )

    @contextmanager
    def _blocks(self, url: str) -> Iterator[Iterator[bytes]]:
        scheme = urlsplit(url).scheme
        try:
            if scheme == "https":
                with self._client() as client, client.stream("GET", url) as response:
                    _check_answer(response, url)
                    yield response.iter_bytes(_BLOCK_BYTES)
            elif scheme == "file":
                with _local_path(url).open("rb") as source:
                    yield iter(lambda: source.read(_BLOCK_BYTES), b"")
            else:
                raise DownloadError(f"{_shown(url)} cannot be fetched: write an https: or a file: URL.")
        except httpx.HTTPError as error:
            raise DownloadError(f"{_shown(url)} cannot be fetched: {error or type(error).__name__}.") from error
        except httpx.InvalidURL as error:
            raise DownloadError(f"{_shown(url)} is not a URL: {error}.") from error
        except OSError as error:
            raise DownloadError(f"{_shown(url)} cannot be fetched: {error.strerror or error}.") from error

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
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]
