"""Requests for blobs: which agent gets the next chunk."""

from dataclasses import replace

from broker.contract.messages import BlobChunk, BlobRequest
from broker.ledger.blobs import BlobStore

__all__ = [
    "BlobRequests",
]


class BlobRequests:
    """Serves the agents that wait for chunks in turn; a newer request of an agent replaces its older one.

    A request is dropped once it is answered, or when the ledger fails: agents repeat requests that go unanswered.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._waiting: dict[str, BlobRequest] = {}

    @property
    def waiting(self) -> bool:
        """Whether any agent is waiting."""
        return bool(self._waiting)

    def put(self, agent: str, request: BlobRequest) -> None:
        """Add the agent's request."""
        self._waiting[agent] = request

    def next_chunk(self, max_bytes: int) -> tuple[str, BlobChunk]:
        """Return the next agent and one chunk of at most `max_bytes` for it; the rest of its request comes later."""
        agent = next(iter(self._waiting))
        request = self._waiting.pop(agent)
        chunk = self._blobs.chunk(agent, replace(request, length=min(request.length, max_bytes)))
        rest = _rest(request, chunk)
        if rest is not None:
            self._waiting[agent] = rest
        return agent, chunk


def _rest(request: BlobRequest, chunk: BlobChunk) -> BlobRequest | None:
    if chunk.data is None or chunk.size is None:
        return None
    offset, length = request.offset + len(chunk.data), request.length - len(chunk.data)
    return replace(request, offset=offset, length=length) if length > 0 and offset < chunk.size else None
