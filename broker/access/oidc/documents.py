"""Requests to an issuer, within bounds of time and size: what it answers is not trusted to be short."""

from collections.abc import Callable
from typing import Any

import httpx
import msgspec

__all__ = [
    "FAILURES",
    "Unusable",
    "answer_of",
    "document_in",
]


_TIMEOUT_S = 5.0
_MAX_BYTES = 1 << 18


class Unusable(Exception):
    """What the issuer has answered cannot be used; the text is the reason."""


FAILURES = (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, UnicodeDecodeError, Unusable)
"""What `answer_of` and `document_in` raise."""


def answer_of(method: str, url: str, monotonic: Callable[[], float], **options: Any) -> tuple[int, bytes]:
    """Return the status and the content of an answer; `options` are those of httpx, `monotonic` a clock in seconds."""
    end = monotonic() + _TIMEOUT_S
    read = b""
    with (
        httpx.Client(timeout=_TIMEOUT_S) as client,
        client.stream(method, url, headers={"Accept": "application/json"}, **options) as response,
    ):
        for part in response.iter_bytes():
            read += part
            if len(read) > _MAX_BYTES or monotonic() > end:
                raise Unusable(f"{url} sends too much, or too slowly")
    return response.status_code, read


def document_in(content: bytes) -> dict[str, Any]:
    """Return the JSON object in an answer."""
    return msgspec.json.decode(content, type=dict[str, Any])
