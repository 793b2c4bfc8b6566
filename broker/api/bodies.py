"""Bodies of requests: read within a limit, and decoded strictly into a shape."""

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Annotated, TypeVar

import msgspec
from fastapi import Depends
from starlette.requests import ClientDisconnect, Request

from broker.api.problems import InvalidRequest
from broker.contract.limits import MAX_DEPTH, MAX_FRAME_BYTES
from broker.contract.strict_json import DecodeError, parse
from broker.errors import BrokerError

__all__ = [
    "Body",
    "decoded_body",
    "pieces_of_body",
]


_Shape = TypeVar("_Shape")
_MAX_BODY_BYTES = 2 * MAX_FRAME_BYTES  # a command, and as many names of agents


class BodyTooLong(BrokerError):
    """The body of a request is longer than any that a route takes."""

    code = "body_too_long"


async def _body_of(request: Request) -> bytes:
    """Return the body of a request. Raises BodyTooLong, and InvalidRequest if the client goes away before its end."""
    body = b""
    async for chunk in pieces_of_body(request):
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise BodyTooLong(f"The body may have at most {_MAX_BODY_BYTES} bytes.")
    return body


Body = Annotated[bytes, Depends(_body_of)]


async def pieces_of_body(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises InvalidRequest if the client goes away before its end."""
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect:
        raise InvalidRequest("The connection ended before the body did.", code="incomplete_body") from None


def decoded_body(body: bytes, shape: type[_Shape]) -> _Shape:
    """Return the JSON in a body as an instance of a dataclass; types are not coerced. Raises InvalidRequest."""
    try:
        members = parse(body, _MAX_BODY_BYTES, MAX_DEPTH)
    except DecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code=error.code) from error
    if not isinstance(members, dict):
        raise InvalidRequest("The body must be a JSON object.", code="not_a_json_object")
    known = sorted(field.name for field in fields(shape))  # type: ignore[arg-type]
    for name in members:
        if name not in known:
            raise InvalidRequest(
                f"Unknown member {name[:80]!r} in the body; allowed are {', '.join(known)}.", code="unknown_member"
            )
    try:
        return msgspec.convert(members, shape)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The body is invalid: {error}.", code="invalid_member") from error
