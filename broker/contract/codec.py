"""Bytes to messages and back, strictly: nothing is coerced, and every refusal is one DecodeError.

A frame is UTF-8 JSON: one message as an object, several as an array of objects.
"""

import json
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import msgspec

from broker.contract.foreign_forms import is_seed_form, read_seed_form, unknown_field_notes
from broker.contract.limits import (
    CHANNEL_OF,
    ECHO_DEPTH,
    LIMITS,
    LISTS,
    MAX_DEPTH,
    MAX_FRAME_BYTES,
    MAX_ID_LENGTH,
    MAX_NUMBER,
    MAX_REVERSALS,
    MAX_TIMEOUT_S,
    NAMES,
    TEXTS,
    FrameLimits,
    ListLimits,
    fitted,
)
from broker.contract.messages import (
    Ack,
    BlobChunk,
    BlobRequest,
    Command,
    Control,
    Feedback,
    JsonObject,
    Origin,
    Output,
    PendingReversal,
    SequenceNumber,
    Status,
    wire_members,
)
from broker.contract.states import FeedbackKind
from broker.contract.topics import Channel
from broker.errors import BrokerError

__all__ = [
    "MAX_DEPTH",
    "MAX_FRAME_BYTES",
    "MAX_ID_LENGTH",
    "DecodeError",
    "Message",
    "data_fits",
    "decode_acks",
    "decode_blob_chunks",
    "decode_blob_requests",
    "decode_commands",
    "decode_controls",
    "decode_feedbacks",
    "decode_status",
    "encode",
    "frames",
    "status_frame",
    "to_json",
]


Message = Command | Feedback | Ack | Control | Status | BlobRequest | BlobChunk
_M = TypeVar("_M", Command, Feedback, Ack, Control, Status, BlobRequest, BlobChunk)
_Limited = TypeVar("_Limited")
_Check = Callable[[Any, str, str], None]
_MAX_REASON = 300
_COUNTS = ("last_sequence", "queue_depth", "results_waiting", "pending_reversal_count", "epoch", "closed_epoch")
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


def encode(messages: Sequence[Message]) -> bytes:
    """Return the frame that carries these messages: one as an object, any other number as an array."""
    items = [wire_members(message) for message in messages]
    return msgspec.json.encode(items[0] if len(items) == 1 else items)


def to_json(message: Message) -> JsonObject:
    """Return the message as the JSON object that `encode` writes."""
    members: JsonObject = msgspec.json.decode(encode([message]))
    return members


def frames(messages: Sequence[Message], max_bytes: int = MAX_FRAME_BYTES) -> Iterator[bytes]:
    """Yield these messages of one kind, in order, in few frames within their channel's limits and `max_bytes`.

    One message alone is never left out, even if it is too long.
    """
    if not messages:
        return
    limits = LIMITS[CHANNEL_OF[type(messages[0])]]
    if len(messages) <= limits.messages:
        frame = encode(messages)
        if len(frame) <= min(max_bytes, limits.frame_bytes) or len(messages) == 1:
            yield frame
            return
    half = len(messages) // 2
    yield from frames(messages[:half], max_bytes)
    yield from frames(messages[half:], max_bytes)


def status_frame(status: Status) -> bytes:
    """Return the frame of a status, cut where it would not be taken: long texts, then the ends of long lists."""
    shown = fitted(status)
    frame = encode([shown])
    for name in ("pending_reversals", "supported_types", "groups"):
        while len(frame) > LIMITS[Channel.STATUS].frame_bytes and getattr(shown, name):
            items = getattr(shown, name)
            shorter: dict[str, Any] = {name: items[: len(items) // 2]}
            shown = replace(shown, **shorter)
            frame = encode([shown])
    return frame


def data_fits(data: JsonObject) -> bool:
    """Say whether a result may carry this data, its bytes aside."""
    try:
        _check_data(data, "$", "data")
        _check_depth(data, MAX_DEPTH)
    except DecodeError:
        return False
    return True


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
    limits = LIMITS[Channel.COMMAND]
    if max_bytes != limits.frame_bytes:
        limits = replace(limits, frame_bytes=sys.maxsize if max_bytes is None else max_bytes)
    return [_command(item, where, received_at, new_id) for where, item in _items(frame, limits)]


def decode_controls(frame: bytes) -> list[Control]:
    """Return the frame's control messages; raises DecodeError."""
    return [_checked(_convert(item, Control, where), where) for where, item in _items(frame, LIMITS[Channel.CONTROL])]


def decode_acks(frame: bytes) -> list[Ack]:
    """Return the frame's acks; raises DecodeError."""
    return [_checked(_convert(item, Ack, where), where) for where, item in _items(frame, LIMITS[Channel.ACK])]


def decode_feedbacks(frame: bytes) -> list[Feedback]:
    """Return the frame's feedback; raises DecodeError."""
    return [_feedback(item, where) for where, item in _items(frame, LIMITS[Channel.FEEDBACK])]


def decode_status(frame: bytes) -> Status:
    """Return the one status that the frame holds; raises DecodeError."""
    status = _checked(_in_utc(_convert(_parse(frame, LIMITS[Channel.STATUS]), Status, "$"), "$"), "$")
    for name in _COUNTS:
        _check_number(0, getattr(status, name), f"$.{name}")
    return _with_reversals_checked(status)


def decode_blob_requests(frame: bytes) -> list[BlobRequest]:
    """Return the frame's requests for parts of blobs; raises DecodeError."""
    return [_convert(item, BlobRequest, where) for where, item in _items(frame, LIMITS[Channel.BLOB_REQUEST])]


def decode_blob_chunks(frame: bytes) -> list[BlobChunk]:
    """Return the frame's parts of blobs, each with an error or with data within its size; raises DecodeError."""
    return [_blob_chunk(item, where) for where, item in _items(frame, LIMITS[Channel.BLOB_CHUNK])]


def _with_reversals_checked(status: Status) -> Status:
    count = len(status.pending_reversals)
    if count > MAX_REVERSALS:
        raise DecodeError(f"There are {count} items at `$.pending_reversals`; at most {MAX_REVERSALS} are allowed.")
    pending = []
    for index, reversal in enumerate(status.pending_reversals):
        where = f"$.pending_reversals[{index}]"
        time = _utc(_checked(reversal, where).reverses_at, f"{where}.reverses_at")
        pending.append(replace(reversal, reverses_at=time))
    return replace(status, pending_reversals=tuple(pending)) if pending else status


def _command(item: Any, where: str, received_at: datetime, new_id: Callable[[], str]) -> Command:
    if isinstance(item, dict) and is_seed_form(item):
        command = _in_utc(_read_seed_form(item, where, received_at, new_id), where)
    else:
        command = _in_utc(_own_form(item, where), where)
    _checked(command, where)
    _checked(command.origin, f"{where}.origin")
    _check_timeout(command.timeout_s, f"{where}.timeout_s")
    _check_sequence(command.sequence, where)
    return command


def _own_form(item: Any, where: str) -> Command:
    command = _convert(item, Command, where)
    if item.keys() <= _COMMAND_FIELDS:
        return command
    return replace(command, notes=(*command.notes, *unknown_field_notes(item, _COMMAND_FIELDS)))


def _read_seed_form(item: JsonObject, where: str, received_at: datetime, new_id: Callable[[], str]) -> Command:
    _check_depth(item, MAX_DEPTH - ECHO_DEPTH)
    try:
        return read_seed_form(item, received_at, new_id)
    except msgspec.ValidationError as error:
        _refuse("command", error, where)


def _feedback(item: Any, where: str) -> Feedback:
    feedback = _checked(_in_utc(_convert(item, Feedback, where), where), where)
    if feedback.output is not None:
        _checked(feedback.output, f"{where}.output")
    _check_sequence(feedback.sequence, where)
    if feedback.kind is FeedbackKind.RESULT and feedback.outcome is None:
        raise DecodeError(f"The result at `{where}` has no outcome.")
    if feedback.expected is not None:
        _check_number(1, feedback.expected, f"{where}.expected")
    return feedback


def _blob_chunk(item: Any, where: str) -> BlobChunk:
    chunk = _checked(_convert(item, BlobChunk, where), where)
    fits = chunk.data is not None and chunk.size is not None and chunk.offset + len(chunk.data) <= chunk.size
    if not fits and chunk.error is None:
        raise DecodeError(f"The blobchunk at `{where}` has neither an error nor data that lies within its size.")
    return chunk


def _checked(message: _Limited, where: str) -> _Limited:
    """Return the message when its names, texts and lists keep to their limits."""
    for name, check in _CHECKS[type(message)]:
        value = getattr(message, name)
        if value is not None:
            check(value, where, name)
    return message


def _convert(item: Any, kind: type[_M], where: str) -> _M:
    try:
        return msgspec.convert(item, kind, strict=True)
    except msgspec.ValidationError as error:
        _refuse(kind.__name__.lower(), error, where)


def _refuse(kind: str, error: Exception, where: str) -> NoReturn:
    reason, _, path = str(error).partition(" - at `$")
    raise DecodeError(
        f"This is not a valid {kind} message: {reason[:_MAX_REASON]} - at `{where}{path[:_MAX_REASON] or '`'}."
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


def _check_name(value: str, where: str, name: str) -> None:
    if not (0 < len(value) <= MAX_ID_LENGTH and value.isprintable()):
        raise DecodeError(f"The text at `{where}.{name}` must be 1 to {MAX_ID_LENGTH} printable characters.")


def _text_check(most: int) -> _Check:
    def check(value: str, where: str, name: str) -> None:
        if len(value) > most:
            raise DecodeError(f"The text at `{where}.{name}` has {len(value)} characters; at most {most} are allowed.")

    return check


def _list_check(limits: ListLimits) -> _Check:
    def check(value: Collection[Any], where: str, name: str) -> None:
        if not value:
            return
        if len(value) > limits.items:
            raise DecodeError(f"There are {len(value)} items at `{where}.{name}`; at most {limits.items} are allowed.")
        if max(map(len, value)) > limits.characters:
            raise DecodeError(
                f"A text at `{where}.{name}` has more than the {limits.characters} characters that are allowed."
            )

    return check


def _check_timeout(timeout_s: float | None, path: str) -> None:
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise DecodeError(f"The number of seconds at `{path}` must be greater than 0 and at most {MAX_TIMEOUT_S:g}.")


def _check_sequence(sequence: SequenceNumber | None, where: str) -> None:
    if sequence is not None:
        _check_number(0, sequence.epoch, f"{where}.sequence.epoch")
        _check_number(1, sequence.number, f"{where}.sequence.number")


def _check_number(least: int, number: int | None, path: str) -> None:
    if number is not None and not least <= number <= MAX_NUMBER:
        raise DecodeError(f"The number at `{path}` must be at least {least} and at most 2^53 - 1.")


def _checks(kind: type) -> tuple[tuple[str, _Check], ...]:
    names = dict.fromkeys(NAMES.get(kind, ()), _check_name)
    texts = {name: _text_check(most) for name, most in TEXTS.get(kind, {}).items()}
    lists = {name: _list_check(most) for name, most in LISTS.get(kind, {}).items()}
    return tuple({**names, **texts, **lists}.items())


_CHECKS: Mapping[type, tuple[tuple[str, _Check], ...]] = MappingProxyType(
    {kind: _checks(kind) for kind in (*CHANNEL_OF, Origin, Output, PendingReversal)}
)
_check_data = _list_check(LISTS[Feedback]["data"])


def _items(frame: bytes, limits: FrameLimits) -> Iterator[tuple[str, Any]]:
    """Yield each message's path and JSON."""
    value = _parse(frame, limits)
    if not isinstance(value, list):
        yield "$", value
    elif len(value) > limits.messages:
        raise DecodeError(f"The frame has {len(value)} messages; at most {limits.messages} are allowed.")
    else:
        yield from ((f"$[{index}]", item) for index, item in enumerate(value))


def _parse(frame: bytes, limits: FrameLimits) -> Any:
    if len(frame) > limits.frame_bytes:
        raise DecodeError(f"The frame has {len(frame)} bytes; at most {limits.frame_bytes} are allowed.")
    try:
        text = frame.decode("utf-8")
        value = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            _refuse_lone_surrogates(value)
    except RecursionError as error:
        raise _too_deep(limits.depth) from error
    except ValueError as error:
        raise DecodeError(f"The frame is not JSON in UTF-8: {str(error)[:_MAX_REASON]}.") from error
    if text.count("{") + text.count("[") > limits.depth:
        _check_depth(value, limits.depth)
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
