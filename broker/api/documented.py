"""Answers of documented shapes: their JSON and their schemas in the OpenAPI document are made by the same library."""

from typing import Any

import msgspec
from starlette.responses import Response

from broker.api.problems import ProblemDetails

__all__ = [
    "Shapes",
    "json_response",
    "problems",
]


_REFERENCE = "#/components/schemas/{name}"
_MEANINGS = {
    400: "The request is invalid.",
    401: "The request has no valid credential.",
    403: "The role of the principal does not allow it.",
    404: "It does not exist, or not for this principal.",
    409: "Its state does not allow it: it is completed already, in use or online, or cannot be sent again.",
    410: "What followed the event is not kept any more: follow from now on.",
    413: "The body is too long.",
    416: "The blob has none of these bytes.",
    422: "The Idempotency-Key was used for another request.",
    424: "The agent has not answered in time, or with an error, or its journal cannot be read.",
    429: "The principal has sent too many requests; `Retry-After` says when to try again, in seconds.",
    501: "The API, as it is configured, has not what this needs, such as the authority.",
    503: "The ledger, or the issuer of the token, cannot be used now; try again later.",
}
_ANY_ROUTE = (400, 401, 403, 429, 503)


class Shapes:
    """The shapes that routes take and return; their schemas are collected for the document."""

    def __init__(self) -> None:
        self._shapes: list[Any] = [ProblemDetails]

    def returned(self, shape: Any, description: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
        """Return the `responses` of a route that answers with this shape."""
        return {status: {"description": description, "content": {"application/json": {"schema": self._of(shape)}}}}

    def streamed(self, shape: Any, description: str) -> dict[int | str, dict[str, Any]]:
        """Return the `responses` of a route that answers with server-sent events, whose `data` has this shape."""
        schema = {"type": "string", "contentMediaType": "application/json", "contentSchema": self._of(shape)}
        return {200: {"description": description, "content": {"text/event-stream": {"schema": schema}}}}

    def taken(self, shape: Any, example: Any) -> dict[str, Any]:
        """Return the `openapi_extra` of a route whose body has this shape."""
        content = {"application/json": {"schema": self._of(shape), "example": example}}
        return {"requestBody": {"required": True, "content": content}}

    def components(self) -> dict[str, Any]:
        """Return the schemas of all shapes by name."""
        _, components = msgspec.json.schema_components(self._shapes, ref_template=_REFERENCE)
        return components

    def _of(self, shape: Any) -> dict[str, Any]:
        self._shapes.append(shape)
        (schema,), _ = msgspec.json.schema_components([shape], ref_template=_REFERENCE)
        return schema


def json_response(answer: object) -> Response:
    """Return an answer that has one of the documented shapes. Members that are null are written, too."""
    return Response(msgspec.json.encode(answer), media_type="application/json")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` for the problems that every route may have, and these."""
    content = {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(name=ProblemDetails.__name__)}}}
    return {
        status: {"description": _MEANINGS[status], "content": content} for status in sorted({*_ANY_ROUTE, *statuses})
    }
