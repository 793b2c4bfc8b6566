"""Which agent gets the next part of which blob."""

from dataclasses import replace

from broker.contract.messages import BlobChunk, BlobRequest
from broker.ledger.blobs import BlobStore

__all__ = [
    "BlobRequests",
]


class BlobRequests:
    """The agents that wait for parts of blobs, in turn; a newer request of an agent takes the place of its older one.

    Forgets a request when it has answered it, or the ledger has failed: agents ask again for what does not come.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._waiting: dict[str, BlobRequest] = {}

    @property
    def waiting(self) -> bool:
        """Whether any agent waits."""
        return bool(self._waiting)

    def put(self, agent: str, request: BlobRequest) -> None:
        """Let the agent wait for its turn."""
        self._waiting[agent] = request

    def next_chunk(self) -> tuple[str, BlobChunk]:
        """Return the agent whose turn it is and one chunk for it; the rest of its request waits behind the others."""
        agent = next(iter(self._waiting))
        request = self._waiting.pop(agent)
        chunk = self._blobs.chunk(agent, request)
        rest = _rest(request, chunk)
        if rest is not None:
            self._waiting[agent] = rest
        return agent, chunk


def _rest(request: BlobRequest, chunk: BlobChunk) -> BlobRequest | None:
    if chunk.data is None or chunk.size is None:
        return None
    offset, length = request.offset + len(chunk.data), request.length - len(chunk.data)
    return replace(request, offset=offset, length=length) if length > 0 and offset < chunk.size else None
