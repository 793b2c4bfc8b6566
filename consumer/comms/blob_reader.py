"""Reading a file in chunks over MQTT: asked for piece by piece, and again when an answer does not come."""

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
_MAX_PATIENCE_S = 60.0
_POLL_S = 0.2
_MAX_WAITING = 16  # twice the chunks of one request; what comes on top of that is asked for again
_Inbox = queue.Queue[BlobChunk | None]  # None: a new connection, on which to ask again


class _Progress:
    """What one reader has, what it has asked for, and when it asks again.

    On a fast line it asks for more and more at once; on a slow one it waits for twice as long as the last chunk took,
    so that it does not ask for what is on its way.
    """

    def __init__(self, name: str, offset: int, size: int) -> None:
        self.next = offset
        self._name = name
        self._size = size
        self._asked_to = offset
        self._length = MAX_BLOB_CHUNK_BYTES // 2
        self._heard_at = 0.0
        self._patience = 0.0
        self._due = float("-inf")
        self._waits = growing_waits(_MAX_WAIT_S)

    def due_request(self, now: float) -> BlobRequest | None:
        """Return what to ask for now: the next piece, or again what did not come in time."""
        overdue = self.next < self._asked_to
        if overdue and now < self._due:
            return None
        if not overdue:
            self._heard_at = now
        self._due = now + max(next(self._waits), self._patience)
        self._length = MAX_BLOB_CHUNK_BYTES if overdue else min(2 * self._length, MAX_BLOB_REQUEST_BYTES)
        self._asked_to = min(self.next + self._length, self._size)
        return BlobRequest(self._name, self.next, self._asked_to - self.next)

    def take(self, chunk: BlobChunk, now: float) -> bytes:
        """Return the bytes of the chunk that is next, none of any other; raises DownloadError."""
        self._hear(now)
        if chunk.offset != self.next:
            return b""
        if chunk.data is None:
            raise DownloadError(f"The server does not send the file: {chunk.error}")
        if chunk.size != self._size:
            raise DownloadError(f"The file on the server has {chunk.size} bytes, not {self._size}.")
        self.next += len(chunk.data)
        return chunk.data

    def ask_again(self) -> None:
        """Make what was asked for due at once."""
        self._waits = growing_waits(_MAX_WAIT_S)
        self._due = float("-inf")

    def _hear(self, now: float) -> None:
        took, self._heard_at = now - self._heard_at, now
        self._patience = min(2 * took, _MAX_PATIENCE_S)
        self._waits = growing_waits(_MAX_WAIT_S)
        self._due = now + max(next(self._waits), self._patience)


class BlobReader:
    """Reads blobs for handlers, each in its own thread; `receive` and `connected` are the agent's loop's to call.

    Holds no more of a file than one request's answer, twice over.
    """

    def __init__(self, request: Callable[[BlobRequest], None], clock: Clock, *, poll_s: float = _POLL_S) -> None:
        self._request = request
        self._clock = clock
        self._poll_s = poll_s
        self._inboxes: dict[_Inbox, str] = {}

    def receive(self, chunk: BlobChunk) -> None:
        """Hand a chunk to who reads that blob; nobody may."""
        for inbox, name in list(self._inboxes.items()):
            if name == chunk.name and inbox.qsize() < _MAX_WAITING:
                inbox.put(chunk)

    def connected(self) -> None:
        """Ask again at once for what an earlier connection may have lost."""
        for inbox in list(self._inboxes):
            inbox.put(None)

    def read(self, name: str, offset: int, size: int) -> Generator[bytes, None, None]:
        """Yield the bytes of a blob, as `consumer.ports.Blobs` says."""
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
            progress.ask_again()
            return b""
        return progress.take(chunk, self._clock.monotonic())
