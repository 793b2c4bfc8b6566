"""/v1/blobs: files that agents fetch, streamed to the ledger and from it."""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.bodies import pieces_of_body
from broker.api.changes import IdempotencyKey, Requests, Wanted
from broker.api.documented import Shapes, json_response, problems
from broker.api.lists import Cursor, Limit
from broker.api.problems import InvalidRequest
from broker.api.ranges import range_of
from broker.fleet.blob_models import BlobView, StoredBlob
from broker.fleet.blobs_on_ledger import view_of_blob
from broker.fleet.models import PageOf, Role
from broker.ledger.also import Also
from broker.ledger.blob_errors import MAX_BLOB_BYTES, BlobTooLarge
from broker.ledger.blob_upload import BlobUpload
from broker.ledger.blobs import BlobRow, BlobStore

__all__ = [
    "blobs_router",
]


_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The content.", "content": _BYTES},
    206: {"description": "The part that the header Range asks for.", "content": _BYTES},
}
BlobName = Annotated[
    str, Path(description="The SHA-256 of the content, hexadecimal.", pattern="^[0-9a-f]{64}$", examples=[_SHA256])
]


def blobs_router(requests: Requests, blobs: BlobStore, access: Access, shapes: Shapes) -> APIRouter:
    """Return the routes of blobs. What others have stored is only for principals without groups."""
    router = APIRouter(prefix="/v1/blobs", tags=["blobs"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER, everywhere=True))]
    sender = Annotated[Credential, Depends(access.requires(Role.OPERATOR))]
    operator = Annotated[Credential, Depends(access.requires(Role.OPERATOR, everywhere=True))]

    @router.get("", responses=shapes.returned(PageOf[BlobView], "A page of blobs.") | problems())
    def list_blobs(who: viewer, cursor: Cursor = None, limit: Limit = 100) -> Response:
        """List stored files, newest first. For a principal without groups."""
        rows, end = blobs.page(cursor, limit)
        return json_response(PageOf(tuple(map(view_of_blob, rows)), end))

    @router.put(
        "/{sha256}",
        responses=shapes.returned(StoredBlob, "It is stored.") | problems(413),
        openapi_extra={"requestBody": {"required": True, "content": _BYTES}},
    )
    async def store(
        request: Request,
        who: sender,
        sha256: BlobName,
        file_name: Annotated[str, Query(description="The name of the file, for lists.", max_length=255)] = "",
    ) -> Response:
        """Store a file, sent as it is, and return the artifact for the parameters of commands.

        It is compared with the SHA-256, and stored once: a repeat of the request changes nothing and gets the same
        answer, so it needs no Idempotency-Key.
        """
        _refuse_long(request)
        upload = await run_in_threadpool(blobs.begin, file_name)
        is_stored = False
        try:
            async for piece in pieces_of_body(request):
                await run_in_threadpool(upload.add, piece)
            stored = await run_in_threadpool(_finish, upload, sha256, requests.logged(who, "store blob", sha256))
            is_stored = True
        finally:
            if not is_stored:
                await run_in_threadpool(upload.drop)
        return json_response(stored)

    @router.get(
        "/{sha256}",
        responses=_CONTENT | problems(404, 416),
        response_class=StreamingResponse,
    )
    def read(request: Request, who: viewer, sha256: BlobName) -> Response:
        """Return the content of a stored file, or the part that the header `Range` asks for: one range of bytes.

        For a principal without groups.
        """
        return _content(blobs, blobs.find(sha256), request.headers.get("Range"))

    @router.post(
        "/{sha256}/remove",
        responses=shapes.returned(BlobView, "What it has removed.") | problems(404, 409, 422),
    )
    def remove(request: Request, who: operator, sha256: BlobName, idempotency_key: IdempotencyKey = None) -> Response:
        """Delete a stored file. Refused while an open command, or the configuration of a group, refers to it.

        For a principal without groups.
        """
        change = Wanted(request, who, idempotency_key, "remove blob", sha256)
        return requests.once(change, lambda also: _remove(sha256, also))

    def _remove(sha256: str, also: Also[Any]) -> BlobView:
        return view_of_blob(blobs.remove(sha256, lambda connection, row: also(connection, view_of_blob(row))))

    return router


def _refuse_long(request: Request) -> None:
    """Refuse a body whose declared length is too long; one without a declared length is refused as it arrives."""
    length = request.headers.get("Content-Length", "")
    if length.isdecimal() and int(length[:20]) > MAX_BLOB_BYTES:
        raise BlobTooLarge(f"A blob has at most {MAX_BLOB_BYTES} bytes; offer the file at an https: URL instead.")


def _finish(upload: BlobUpload, expected: str, log: Also[object]) -> StoredBlob:
    if upload.sha256 != expected:
        raise InvalidRequest(
            f"The body has the SHA-256 {upload.sha256}, not that of the path: it is another file, or was changed on "
            "the way.",
            code="wrong_sha256",
        )
    return StoredBlob(**vars(upload.finish(log)))


def _content(blobs: BlobStore, row: BlobRow, header: str | None) -> Response:
    size, name = row.artifact.size, row.artifact.sha256
    part = range_of(header, size)
    wanted = part or range(size)
    headers = {
        "Content-Length": str(len(wanted)),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(row.file_name or name, safe='')}",
        "ETag": f'"{name}"',
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    content = _begun(blobs.read(name, wanted.start, wanted.stop))
    return StreamingResponse(content, 200 if part is None else 206, headers, media_type="application/octet-stream")


def _begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Return the pieces with the first one read, so that what it raises is still answered with a problem."""
    return chain([next(pieces, b"")], pieces)
