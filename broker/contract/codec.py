"""Bytes to messages and back, strictly: nothing is coerced, and every refusal is one DecodeError.

A frame is UTF-8 JSON: one message as an object, several as an array of objects.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Listing
from dataclasses import fields, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import msgspec

from broker.contract.messages import (
    Ack,
    BlobChunk,
    BlobRequest,
    Command,
    Control,
    Feedback,
    JsonObject,
    Sequence,
    Status,
    wire_members,
)
from broker.contract.seed_forms import is_seed_form, read_seed_form, unknown_field_notes
from broker.contract.states import FeedbackKind
from broker.errors import BrokerError

__all__ = [
    "MAX_DEPTH",
    "MAX_FRAME_BYTES",
    "MAX_ID_LENGTH",
    "DecodeError",
    "Message",
    "decode_acks",
    "decode_blob_chunks",
    "decode_blob_requests",
    "decode_commands",
    "decode_controls",
    "decode_feedbacks",
    "decode_status",
    "encode",
    "frames",
    "to_json",
]

MAX_FRAME_BYTES = 262144
MAX_DEPTH = 32
MAX_ID_LENGTH = 128

Message = Command | Feedback | Ack | Control | Status | BlobRequest | BlobChunk

_M = TypeVar("_M", Command, Feedback, Ack, Control, Status, BlobRequest, BlobChunk)
_OfCommand = TypeVar("_OfCommand", Ack, Control)

_LONGEST_REASON = 300
# What nesting a command in `original`, and again in a feedback and its frame, adds to the depth.
_ECHO_DEPTH = 2
_INTEGERS = range(-(2**63), 2**63)
_COMMAND_FIELDS = frozenset(field.name for field in fields(Command))
_TIMES: Mapping[type, tuple[str, ...]] = MappingProxyType(
    {
        Command: ("created_at", "expires_at"),
        Feedback: ("started_at", "finished_at"),
        Status: ("updated_at",),
    }
)


class DecodeError(BrokerError):
    """A frame is not what its topic promises; the text says what is wrong and where."""


def encode(messages: Listing[Message]) -> bytes:
    """Return the frame that carries these messages: one as an object, any other number as an array."""
    items = [wire_members(message) for message in messages]
    return msgspec.json.encode(items[0] if len(items) == 1 else items)


def to_json(message: Message) -> JsonObject:
    """Return the message as the JSON object that `encode` writes."""
    members: JsonObject = msgspec.json.decode(encode([message]))
    return members


def frames(messages: Listing[Message], max_bytes: int = MAX_FRAME_BYTES) -> Iterator[bytes]:
    """Yield these messages, in order, in few frames that keep to the size cap, unless one alone exceeds it."""
    if not messages:
        return
    frame = encode(messages)
    if len(frame) <= max_bytes or len(messages) == 1:
        yield frame
        return
    half = len(messages) // 2
    yield from frames(messages[:half], max_bytes)
    yield from frames(messages[half:], max_bytes)


def decode_commands(
    frame: bytes,
    *,
    received_at: datetime,
    new_id: Callable[[], str],
    max_bytes: int | None = MAX_FRAME_BYTES,
) -> list[Command]:
    """Return the frame's commands, each in our form or in any of the seed's; raises DecodeError.

    `received_at` and `new_id` stand in for what a seed form lacks. `max_bytes` None is for what a store has
    encoded itself: a command from a seed form is written with its original, so it can outgrow its frame.
    """
    return [_command(item, where, received_at, new_id) for where, item in _items(frame, max_bytes)]


def decode_controls(frame: bytes) -> list[Control]:
    """Return the frame's control messages; raises DecodeError."""
    return [_with_command_id(_convert(item, Control, where), where) for where, item in _items(frame)]


def decode_acks(frame: bytes) -> list[Ack]:
    """Return the frame's acks; raises DecodeError."""
    return [_with_command_id(_convert(item, Ack, where), where) for where, item in _items(frame)]


def decode_feedbacks(frame: bytes, *, max_bytes: int | None = MAX_FRAME_BYTES) -> list[Feedback]:
    """Return the frame's feedback; raises DecodeError. `max_bytes` None is for what a store has encoded itself."""
    deepest = MAX_DEPTH + _ECHO_DEPTH
    return [_feedback(item, where) for where, item in _items(frame, max_bytes, deepest)]


def decode_status(frame: bytes) -> Status:
    """Return the one status that the frame holds; raises DecodeError."""
    status = _reversals_in_utc(_in_utc(_convert(_parse(frame), Status, "$"), "$"))
    for name in ("last_sequence", "queue_depth", "results_waiting", "pending_reversal_count"):
        _check_at_least(0, getattr(status, name), f"$.{name}")
    return status


def decode_blob_requests(frame: bytes) -> list[BlobRequest]:
    """Return the frame's requests for parts of blobs; raises DecodeError."""
    return [_convert(item, BlobRequest, where) for where, item in _items(frame)]


def decode_blob_chunks(frame: bytes) -> list[BlobChunk]:
    """Return the frame's parts of blobs, each with an error or with data within its size; raises DecodeError."""
    return [_blob_chunk(item, where) for where, item in _items(frame)]


def _reversals_in_utc(status: Status) -> Status:
    times = [
        _utc(it.reverses_at, f"$.pending_reversals[{i}].reverses_at") for i, it in enumerate(status.pending_reversals)
    ]
    pending = tuple(replace(it, reverses_at=time) for it, time in zip(status.pending_reversals, times, strict=True))
    return replace(status, pending_reversals=pending) if pending else status


def _command(item: Any, where: str, received_at: datetime, new_id: Callable[[], str]) -> Command:
    if isinstance(item, dict) and is_seed_form(item):
        with_times = _in_utc(_read_seed_form(item, where, received_at, new_id), where)
    else:
        with_times = _in_utc(_own_form(item, where), where)
    _check_name(with_times.id, f"{where}.id")
    _check_name(with_times.type, f"{where}.type")
    _check_timeout(with_times.timeout_s, f"{where}.timeout_s")
    _check_sequence(with_times.sequence, where)
    return with_times


def _own_form(item: Any, where: str) -> Command:
    command = _convert(item, Command, where)
    if item.keys() <= _COMMAND_FIELDS:
        return command
    return replace(command, notes=(*command.notes, *unknown_field_notes(item, _COMMAND_FIELDS)))


def _read_seed_form(item: JsonObject, where: str, received_at: datetime, new_id: Callable[[], str]) -> Command:
    _check_depth(item, MAX_DEPTH - _ECHO_DEPTH)
    try:
        return read_seed_form(item, received_at, new_id)
    except msgspec.ValidationError as error:
        _refuse("command", error, where)


def _feedback(item: Any, where: str) -> Feedback:
    feedback = _in_utc(_convert(item, Feedback, where), where)
    if feedback.command_id is not None:
        _check_name(feedback.command_id, f"{where}.command_id")
    _check_sequence(feedback.sequence, where)
    if feedback.kind is FeedbackKind.RESULT and feedback.outcome is None:
        raise DecodeError(f"The result at `{where}` has no outcome.")
    if feedback.expected is not None:
        _check_at_least(1, feedback.expected, f"{where}.expected")
    return feedback


def _blob_chunk(item: Any, where: str) -> BlobChunk:
    chunk = _convert(item, BlobChunk, where)
    fits = chunk.data is not None and chunk.size is not None and chunk.offset + len(chunk.data) <= chunk.size
    if not fits and chunk.error is None:
        raise DecodeError(f"The blobchunk at `{where}` has neither an error nor data that lies within its size.")
    return chunk


def _with_command_id(message: _OfCommand, where: str) -> _OfCommand:
    _check_name(message.command_id, f"{where}.command_id")
    return message


def _convert(item: Any, kind: type[_M], where: str) -> _M:
    try:
        return msgspec.convert(item, kind, strict=True)
    except msgspec.ValidationError as error:
        _refuse(kind.__name__.lower(), error, where)


def _refuse(kind: str, error: Exception, where: str) -> NoReturn:
    reason, _, path = str(error).partition(" - at `$")
    raise DecodeError(
        f"This is not a valid {kind} message: {reason[:_LONGEST_REASON]} - at `{where}{path[:_LONGEST_REASON] or '`'}."
    ) from error


def _in_utc(message: _M, where: str) -> _M:
    changes: dict[str, Any] = {}
    for name in _TIMES[type(message)]:
        moment = getattr(message, name)
        if moment is not None and moment.tzinfo is not UTC:
            changes[name] = _utc(moment, f"{where}.{name}")
    return replace(message, **changes) if changes else message


def _utc(moment: datetime, path: str) -> datetime:
    if moment.tzinfo is None:
        raise DecodeError(f"The time at `{path}` has no time zone; write it as RFC 3339, ending in Z.")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise DecodeError(f"The time at `{path}` lies outside the years 1 to 9999 in UTC.") from error


def _check_name(name: str, path: str) -> None:
    if not (0 < len(name) <= MAX_ID_LENGTH and name.isprintable()):
        raise DecodeError(f"The text at `{path}` must be 1 to {MAX_ID_LENGTH} printable characters.")


def _check_timeout(timeout_s: float | None, path: str) -> None:
    if timeout_s is not None and not (timeout_s > 0 and math.isfinite(timeout_s)):
        raise DecodeError(f"The number of seconds at `{path}` must be greater than 0.")


def _check_sequence(sequence: Sequence | None, where: str) -> None:
    if sequence is not None:
        _check_at_least(0, sequence.epoch, f"{where}.sequence.epoch")
        _check_at_least(1, sequence.number, f"{where}.sequence.number")


def _check_at_least(least: int, number: int, path: str) -> None:
    if number < least:
        raise DecodeError(f"The number at `{path}` must be at least {least}.")


def _items(
    frame: bytes, max_bytes: int | None = MAX_FRAME_BYTES, max_depth: int = MAX_DEPTH
) -> Iterator[tuple[str, Any]]:
    """Yield each message's path and JSON."""
    value = _parse(frame, max_bytes, max_depth)
    if isinstance(value, list):
        yield from ((f"$[{index}]", item) for index, item in enumerate(value))
    else:
        yield "$", value


def _parse(frame: bytes, max_bytes: int | None = MAX_FRAME_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    if max_bytes is not None and len(frame) > max_bytes:
        raise DecodeError(f"The frame has {len(frame)} bytes; at most {max_bytes} are allowed.")
    try:
        text = frame.decode("utf-8")
        value = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            _refuse_lone_surrogates(value)
    except RecursionError as error:
        raise _too_deep(max_depth) from error
    except ValueError as error:
        raise DecodeError(f"The frame is not JSON in UTF-8: {str(error)[:_LONGEST_REASON]}.") from error
    if text.count("{") + text.count("[") > max_depth:
        _check_depth(value, max_depth)
    return value


def _refuse_lone_surrogates(value: Any) -> None:
    """Raise UnicodeEncodeError if any text in `value` cannot be written as UTF-8."""
    json.dumps(value, ensure_ascii=False).encode("utf-8")


def _check_depth(value: Any, max_depth: int) -> None:
    level = _containers([value])
    for _ in range(max_depth):
        level = [inner for outer in level for inner in _containers(outer)]
    if level:
        raise _too_deep(max_depth)


def _containers(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value
    return [inner for inner in inside if isinstance(inner, dict | list)]


def _too_deep(max_depth: int) -> DecodeError:
    return DecodeError(f"The frame nests objects and arrays more than {max_depth} deep.")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> JsonObject:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("an object has the same key twice")
    return unique


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def _integer(digits: str) -> int:
    number = int(digits)
    if number not in _INTEGERS:
        raise ValueError("an integer does not fit in 64 bits")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates,
    parse_constant=_refuse_constant,
    parse_float=_finite,
    parse_int=_integer,
)
