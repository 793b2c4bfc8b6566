"""Reading a file in chunks over MQTT: requested piece by piece, with retries."""

import queue
from collections.abc import Callable, Generator

from broker.contract.messages import MAX_BLOB_CHUNK_BYTES, MAX_BLOB_REQUEST_BYTES, BlobChunk, BlobRequest
from broker.system.retry import growing_waits
from consumer.errors import DownloadError
from consumer.ports import Clock

__all__ = [
    "BlobReader",
]


_MAX_WAIT_S = 30.0
_MAX_ADAPTIVE_WAIT_S = 60.0
_POLL_INTERVAL_S = 0.2
_CHUNKS_PER_REQUEST = 8
_MAX_WAITING = 2 * _CHUNKS_PER_REQUEST  # chunks beyond that are dropped and requested again
_Inbox = queue.Queue[BlobChunk | None]  # None: a new connection, so request again


class _Progress:
    """The progress of one reader: data received, data requested, and when to request again.

    On a fast connection, its requests grow; on a slow one, it waits twice as long as the last chunk took, so that it
    does not request data that is already on its way.
    """

    def __init__(self, name: str, offset: int, size: int) -> None:
        self.next = offset
        self._name = name
        self._size = size
        self._requested_to = offset
        self._length = MAX_BLOB_CHUNK_BYTES // 2
        self._longest_chunk = 0
        self._received_at = 0.0
        self._adaptive_wait_s = 0.0
        self._due = float("-inf")
        self._waits = growing_waits(_MAX_WAIT_S)

    def due_request(self, now: float) -> BlobRequest | None:
        """Return the request that is due, for the next piece or for an overdue one; None if none is due."""
        overdue = self.next < self._requested_to
        if overdue and now < self._due:
            return None
        if not overdue:
            self._received_at = now
        self._due = now + max(next(self._waits), self._adaptive_wait_s)
        self._length = MAX_BLOB_CHUNK_BYTES if overdue else min(2 * self._length, self._longest_request)
        self._requested_to = min(self.next + self._length, self._size)
        return BlobRequest(self._name, self.next, self._requested_to - self.next)

    def take(self, chunk: BlobChunk, now: float) -> bytes:
        """Return the bytes of the chunk if it is the next one, else none.

        Raises DownloadError if the server refuses, or if its file has a different size.
        """
        self._measure(now)
        if chunk.offset != self.next:
            return b""
        if chunk.data is None:
            raise DownloadError(f"The server refused to send the file: {chunk.error}", code="blob_refused")
        if chunk.size != self._size:
            raise DownloadError(f"The file on the server has {chunk.size} bytes, not {self._size}.", code="wrong_size")
        self.next += len(chunk.data)
        self._longest_chunk = max(self._longest_chunk, len(chunk.data))
        return chunk.data

    def retry_now(self) -> None:
        """Make the outstanding request due at once."""
        self._waits = growing_waits(_MAX_WAIT_S)
        self._due = float("-inf")

    @property
    def _longest_request(self) -> int:
        """How much to request at once: fewer bytes where the broker's limit makes the chunks shorter."""
        chunk_bytes = self._longest_chunk or MAX_BLOB_CHUNK_BYTES
        return min(MAX_BLOB_REQUEST_BYTES, _CHUNKS_PER_REQUEST * chunk_bytes)

    def _measure(self, now: float) -> None:
        took, self._received_at = now - self._received_at, now
        self._adaptive_wait_s = min(2 * took, _MAX_ADAPTIVE_WAIT_S)
        self._waits = growing_waits(_MAX_WAIT_S)
        self._due = now + max(next(self._waits), self._adaptive_wait_s)


class BlobReader:
    """Reads blobs for handlers, each in its own thread. The agent's loop calls `receive` and `connected`.

    Buffers at most the chunks of two requests for each reader.
    """

    def __init__(
        self, request: Callable[[BlobRequest], None], clock: Clock, *, poll_s: float = _POLL_INTERVAL_S
    ) -> None:
        self._request = request
        self._clock = clock
        self._poll_s = poll_s
        self._inboxes: dict[_Inbox, str] = {}

    def receive(self, chunk: BlobChunk) -> None:
        """Pass a chunk to the readers of its blob, if there are any."""
        for inbox, name in list(self._inboxes.items()):
            if name == chunk.name and inbox.qsize() < _MAX_WAITING:
                inbox.put(chunk)

    def connected(self) -> None:
        """Immediately repeat the requests that an earlier connection may have lost."""
        for inbox in list(self._inboxes):
            inbox.put(None)

    def read(self, name: str, offset: int, size: int) -> Generator[bytes, None, None]:
        """Yield the bytes of a blob; see consumer.ports.Blobs."""
        inbox: _Inbox = queue.Queue()
        self._inboxes[inbox] = name
        progress = _Progress(name, offset, size)
        try:
            while progress.next < size:
                request = progress.due_request(self._clock.monotonic())
                if request is not None:
                    self._request(request)
                yield self._next_bytes(inbox, progress)
        finally:
            del self._inboxes[inbox]

    def _next_bytes(self, inbox: _Inbox, progress: _Progress) -> bytes:
        try:
            chunk = inbox.get(timeout=self._poll_s)
        except queue.Empty:
            return b""
        if chunk is None:
            progress.retry_now()
            return b""
        return progress.take(chunk, self._clock.monotonic())
