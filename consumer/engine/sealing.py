"""Seals results: encodes each once, in a form that its server accepts, with its digest as the last member."""

import hashlib
import math
from dataclasses import is_dataclass, replace
from typing import Any

import msgspec

from broker.contract.codec import MAX_FRAME_BYTES, DecodeError, data_fits, decode_feedbacks, encode
from broker.contract.limit_checks import checked
from broker.contract.limits import truncated
from broker.contract.messages import Feedback, JsonObject
from broker.contract.states import ErrorCode
from consumer.handler import Result
from consumer.ports import EncodedFeedback

__all__ = [
    "UnreportableResult",
    "json_data",
    "sealed",
    "shortened",
]


_TOO_LONG = "the result would not fit into one message"
_BARE_LENGTH = 100
_MAX_RESULT_BYTES = MAX_FRAME_BYTES - 128  # the digest is added afterwards


class UnreportableResult(Exception):
    """What a handler returned has no place on the wire; the text is the part of a sentence after a colon."""


def json_data(result: Result) -> JsonObject | None:
    """Return a handler's data as a JSON object; members of its dataclass that are None are left out.

    Raises UnreportableResult for what JSON cannot express: other types, NaN and infinities.
    """
    data: Any = result.data
    if data is None:
        return None
    try:
        members = msgspec.to_builtins(data)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise UnreportableResult(f"its data are not JSON: {error}") from error
    if not isinstance(members, dict):
        raise UnreportableResult(f"its data are not a JSON object, but of the type {type(data).__name__}")
    _check_values(members)
    if is_dataclass(data):
        return {name: value for name, value in members.items() if value is not None}
    return members


def _check_values(data: JsonObject) -> None:
    left: list[Any] = [data]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            if not all(isinstance(name, str) for name in item):
                raise UnreportableResult("its data have a name that is not text")
            left += item.values()
        elif isinstance(item, list | tuple):
            left += item
        elif isinstance(item, float) and not math.isfinite(item):
            raise UnreportableResult("its data have a number that is not finite")


# design.md: "A result is encoded once."
def sealed(result: Feedback) -> EncodedFeedback:
    """Return the result with its digest as the last member: the bytes before it are those that were hashed.

    What a handler has filled in is decoded as its server decodes it; raises UnreportableResult if that fails.
    """
    try:
        fitted, encoded = _fitted(_cut(result))
        digest = hashlib.sha256(encoded).hexdigest()
        complete = encoded[:-1] + f',"digest":"{digest}"}}'.encode()
        if _is_plain(result):
            accepted = checked(_with_digest(fitted, digest), "$")
        else:
            (accepted,) = decode_feedbacks(complete)
    except (TypeError, ValueError, RecursionError, OverflowError, DecodeError) as error:
        raise UnreportableResult(f"the server would refuse it: {str(error).rstrip('.')}") from error
    return EncodedFeedback(accepted, complete)


def _with_digest(result: Feedback, digest: str) -> Feedback:
    """Return a copy with this digest. That of `dataclasses.replace` would be a twentieth of a command's cost."""
    copy = object.__new__(Feedback)
    vars(copy).update(vars(result), digest=digest)
    return copy


def _is_plain(result: Feedback) -> bool:
    """Return whether its handler has given a text and a code only: decoding it would be a tenth of a command's cost."""
    return result.data is None and result.output is None and (result.code is None or type(result.code) is ErrorCode)


def shortened(encoded: bytes, max_bytes: int) -> bytes:
    """Return feedback with parts left out, until it has at most `max_bytes`; the digest stays, it is opaque.

    The broker's limit may be lower than that of a frame, and change after the feedback was encoded.
    """
    if len(encoded) <= max_bytes:
        return encoded
    (feedback,) = decode_feedbacks(encoded)
    for part in ("command", "output", "data"):
        if getattr(feedback, part) is not None:
            feedback = _without(part, feedback, f"the broker takes at most {max_bytes} bytes")
            encoded = encode([feedback])
            if len(encoded) <= max_bytes:
                return encoded
    return encode([replace(feedback, message=feedback.message[:_BARE_LENGTH], notes=())])


def _fitted(result: Feedback) -> tuple[Feedback, bytes]:
    """Drop the echo, then the output, then the data, until a frame can carry the result; return it, also encoded."""
    if result.data is not None and not data_fits(result.data):
        result = _without("data", result, _TOO_LONG)
    encoded = encode([result])
    for part in ("command", "output", "data"):
        if len(encoded) <= _MAX_RESULT_BYTES:
            break
        if getattr(result, part) is not None:
            result = _without(part, result, _TOO_LONG)
            encoded = encode([result])
    return result, encoded


def _without(part: str, result: Feedback, reason: str) -> Feedback:
    note = f"{part} was left out: {reason}"
    left_out: dict[str, Any] = {part: None}
    return replace(result, **left_out, notes=(*result.notes, note))


def _cut(result: Feedback) -> Feedback:
    """Return the result with message and output truncated to the lengths that the server accepts."""
    cut, output = truncated(result), result.output
    shown = truncated(output) if output is not None else None
    return cut if output is shown or shown is None else replace(cut, output=replace(shown, truncated=True))
