"""JSON from untrusted bytes, read strictly (RFC 8259, with the restrictions of I-JSON, RFC 7493).

Refused: input longer than a limit, invalid UTF-8, duplicate keys, NaN and infinities, integers outside 64 bits, lone
surrogates, and nesting deeper than a limit.
"""

import json
import math
from typing import Any, NoReturn

import msgspec

from broker.errors import BrokerError

__all__ = [
    "MAX_REASON_LENGTH",
    "DecodeError",
    "check_depth",
    "parse",
]


MAX_REASON_LENGTH = 300  # of what a parser reports, so that an error stays short
_INTEGERS = range(-(2**63), 2**63)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class DecodeError(BrokerError):
    """A frame is not valid JSON, or not a valid message of its channel. `path` is where (`$.origin.name`)."""

    code = "decode_error"

    def __init__(self, message: str, *, code: str | None = None, path: str = "$") -> None:
        super().__init__(message, code=code)
        self.path = path


def parse(data: bytes, max_bytes: int, max_depth: int) -> Any:
    """Return the JSON value; raises DecodeError. The size is checked before anything is parsed."""
    if len(data) > max_bytes:
        raise DecodeError(f"The frame has {len(data)} bytes; at most {max_bytes} are allowed.", code="frame_too_large")
    try:
        value = _decode(data)
        is_strict = _is_strict(value, data)
    except (ValueError, RecursionError):
        is_strict = False
    if not is_strict:
        value = _parse_strictly(data, max_depth)
    if data.count(b"{") + data.count(b"[") > max_depth:
        check_depth(value, max_depth)
    return value


def _is_strict(value: Any, data: bytes) -> bool:
    """Return whether these bytes, which msgspec has decoded to `value`, have no key twice and only integers of 64 bits.

    msgspec refuses everything else that is refused here. With this check it takes a third of the time that the json
    module takes with hooks. The quotes of a key that occurs twice are missing from the value; with escapes, quotes
    cannot be counted.
    """
    texts = 0
    left = [value]
    while left:
        item = left.pop()
        kind = type(item)
        if kind is str:
            texts += 1
        elif kind is dict:
            texts += len(item)
            left += item.values()
        elif kind is list:
            left += item
        elif kind is int and item not in _INTEGERS:
            return False
    return _encode(value) == data if b"\\" in data else data.count(b'"') == 2 * texts


def _parse_strictly(data: bytes, max_depth: int) -> Any:
    """Return the JSON value, or say what is wrong with it."""
    try:
        text = data.decode("utf-8")
        value = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            _refuse_lone_surrogates(value)
    except RecursionError as error:
        raise _too_deep(max_depth) from error
    except ValueError as error:
        reason = str(error)[:MAX_REASON_LENGTH]
        raise DecodeError(f"This is not JSON in UTF-8: {reason}.", code="not_json") from error
    return value


def check_depth(value: Any, max_depth: int) -> None:
    """Raise DecodeError if objects and arrays nest more than `max_depth` levels deep."""
    level = _containers([value])
    for _ in range(max_depth):
        level = [inner for outer in level for inner in _containers(outer)]
    if level:
        raise _too_deep(max_depth)


def _containers(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value
    return [inner for inner in inside if isinstance(inner, dict | list)]


def _too_deep(max_depth: int) -> DecodeError:
    return DecodeError(f"Objects and arrays nest more than {max_depth} levels deep.", code="too_deep")


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DecodeError("A text has a lone surrogate.", code="lone_surrogate") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise DecodeError("An object has the same key twice.", code="duplicate_key")
    return unique


def _refuse_constant(word: str) -> NoReturn:
    raise DecodeError(f"{word} is not a JSON number.", code="not_finite")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise DecodeError("A number is too large for a float.", code="not_finite")
    return number


def _integer(digits: str) -> int:
    # 2^63 has 19 digits; int() of thousands of digits is slow, and raises a plain ValueError.
    number = int(digits) if len(digits) <= 20 else None
    if number is None or number not in _INTEGERS:
        raise DecodeError("An integer does not fit in 64 bits.", code="integer_out_of_range")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates,
    parse_constant=_refuse_constant,
    parse_float=_finite,
    parse_int=_integer,
)
