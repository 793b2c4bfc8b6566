"""Encodes messages as frames and decodes them, strictly: nothing is coerced, and each refusal is a DecodeError.

A frame is JSON in UTF-8: one message as an object, several as an array of objects.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import msgspec

from broker.contract.foreign_forms import is_foreign_form, read_foreign_form, unknown_field_notes
from broker.contract.limit_checks import (
    check_data,
    check_number,
    check_sequence,
    check_timeout,
    checked,
    too_many_items,
)
from broker.contract.limits import (
    CHANNEL_OF,
    ECHO_DEPTH,
    LIMITS,
    MAX_DEPTH,
    MAX_FRAME_BYTES,
    MAX_REVERSALS,
    FrameLimits,
    truncated,
)
from broker.contract.messages import (
    Ack,
    BlobChunk,
    BlobRequest,
    Command,
    Control,
    Feedback,
    JsonObject,
    PendingReversal,
    Status,
    wire_members,
)
from broker.contract.states import FeedbackKind
from broker.contract.strict_json import MAX_REASON_LENGTH, DecodeError, check_depth, parse
from broker.contract.topics import Channel

__all__ = [
    "MAX_FRAME_BYTES",
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
    "encode_status",
    "frames",
    "joined_frames",
    "to_json",
]


Message = Command | Feedback | Ack | Control | Status | BlobRequest | BlobChunk
_M = TypeVar("_M", Command, Feedback, Ack, Control, Status, BlobRequest, BlobChunk)
_COUNTS = ("last_sequence", "queue_depth", "results_waiting", "pending_reversal_count", "epoch", "closed_epoch")
_COMMAND_FIELDS = frozenset(field.name for field in fields(Command))
_TIMES: Mapping[type, tuple[str, ...]] = MappingProxyType(
    {
        Command: ("created_at", "expires_at"),
        Feedback: ("started_at", "finished_at"),
        Status: ("updated_at",),
    }
)


def encode(messages: Sequence[Message]) -> bytes:
    """Return the frame of these messages: one message as an object, any other number as an array."""
    items = [wire_members(message) for message in messages]
    return msgspec.json.encode(items[0] if len(items) == 1 else items)


def to_json(message: Message | PendingReversal) -> JsonObject:
    """Return the message as a JSON object, with the members and values that `encode` writes."""
    members: JsonObject = msgspec.json.decode(msgspec.json.encode(wire_members(message)))
    return members


def frames(messages: Sequence[Message], max_bytes: int = MAX_FRAME_BYTES) -> Iterator[bytes]:
    """Yield frames of these messages of one kind, in order, each within the channel's limits and `max_bytes`.

    A single message that is too long is still yielded.
    """
    if messages:
        encoded = [encode([message]) for message in messages]
        yield from joined_frames(encoded, CHANNEL_OF[type(messages[0])], max_bytes)


def joined_frames(encoded: Sequence[bytes], channel: Channel, max_bytes: int = MAX_FRAME_BYTES) -> Iterator[bytes]:
    """Like `frames`, for messages that were already encoded one by one."""
    limits = LIMITS[channel]
    size = sum(map(len, encoded)) + len(encoded) + 1  # with the brackets and the commas
    if len(encoded) == 1:
        yield encoded[0]
    elif 0 < len(encoded) <= limits.messages and size <= min(max_bytes, limits.frame_bytes):
        yield b"[" + b",".join(encoded) + b"]"
    elif encoded:
        half = len(encoded) // 2
        yield from joined_frames(encoded[:half], channel, max_bytes)
        yield from joined_frames(encoded[half:], channel, max_bytes)


def encode_status(status: Status, max_bytes: int = LIMITS[Channel.STATUS].frame_bytes) -> bytes:
    """Return the frame of a status, cut to the channel's limits: first long texts, then the ends of long lists."""
    shown = truncated(status)
    frame = encode([shown])
    for name in ("pending_reversals", "supported_types", "groups"):
        while len(frame) > max_bytes and getattr(shown, name):
            items = getattr(shown, name)
            shorter: dict[str, Any] = {name: items[: len(items) // 2]}
            shown = replace(shown, **shorter)
            frame = encode([shown])
    return frame


def data_fits(data: JsonObject) -> bool:
    """Return whether a result may carry this data, apart from its size in bytes."""
    try:
        check_data(data)
        check_depth(data, MAX_DEPTH)
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
    """Return the frame's commands, each in our form or in one of the foreign forms; raises DecodeError.

    `received_at` and `new_id` give the time and the id that a foreign form lacks. `max_bytes` is None for rows of our
    own store: a command in a foreign form is stored with its original JSON, so its row can exceed the limit of a frame.
    """
    limits = LIMITS[Channel.COMMAND]
    if max_bytes != limits.frame_bytes:
        limits = replace(limits, frame_bytes=sys.maxsize if max_bytes is None else max_bytes)
    return [_command(item, where, received_at, new_id) for where, item in _items(frame, limits)]


def decode_controls(frame: bytes) -> list[Control]:
    """Return the frame's control messages; raises DecodeError."""
    return [checked(_convert(item, Control, where), where) for where, item in _items(frame, LIMITS[Channel.CONTROL])]


def decode_acks(frame: bytes) -> list[Ack]:
    """Return the frame's acks; raises DecodeError."""
    return [checked(_convert(item, Ack, where), where) for where, item in _items(frame, LIMITS[Channel.ACK])]


def decode_feedbacks(frame: bytes) -> list[Feedback]:
    """Return the frame's feedback; raises DecodeError."""
    return [_feedback(item, where) for where, item in _items(frame, LIMITS[Channel.FEEDBACK])]


def decode_status(frame: bytes) -> Status:
    """Return the one status that the frame holds; raises DecodeError."""
    limits = LIMITS[Channel.STATUS]
    status = checked(_in_utc(_convert(parse(frame, limits.frame_bytes, limits.depth), Status, "$"), "$"), "$")
    for name in _COUNTS:
        check_number(0, getattr(status, name), f"$.{name}")
    for number in status.order or ():
        check_number(0, number, "$.order")
    return _with_reversals_checked(status)


def decode_blob_requests(frame: bytes) -> list[BlobRequest]:
    """Return the frame's requests for parts of blobs; raises DecodeError."""
    return [_convert(item, BlobRequest, where) for where, item in _items(frame, LIMITS[Channel.BLOB_REQUEST])]


def decode_blob_chunks(frame: bytes) -> list[BlobChunk]:
    """Return the frame's parts of blobs, each with an error or with data inside the blob; raises DecodeError."""
    return [_blob_chunk(item, where) for where, item in _items(frame, LIMITS[Channel.BLOB_CHUNK])]


def _with_reversals_checked(status: Status) -> Status:
    count = len(status.pending_reversals)
    if count > MAX_REVERSALS:
        raise too_many_items(count, MAX_REVERSALS, "$.pending_reversals")
    pending = []
    for index, reversal in enumerate(status.pending_reversals):
        where = f"$.pending_reversals[{index}]"
        time = _utc(checked(reversal, where).reverses_at, f"{where}.reverses_at")
        pending.append(replace(reversal, reverses_at=time))
    return replace(status, pending_reversals=tuple(pending)) if pending else status


def _command(item: Any, where: str, received_at: datetime, new_id: Callable[[], str]) -> Command:
    if isinstance(item, dict) and is_foreign_form(item):
        command = _in_utc(_read_foreign_form(item, where, received_at, new_id), where)
    else:
        command = _in_utc(_own_form(item, where), where)
    checked(command, where)
    checked(command.origin, f"{where}.origin")
    check_timeout(command.timeout_s, f"{where}.timeout_s")
    check_sequence(command.sequence, where)
    return command


def _own_form(item: Any, where: str) -> Command:
    command = _convert(item, Command, where)
    if item.keys() <= _COMMAND_FIELDS:
        return command
    try:
        return replace(command, notes=(*command.notes, *unknown_field_notes(item, _COMMAND_FIELDS)))
    except msgspec.ValidationError as error:
        _refuse("command", error, where)


def _read_foreign_form(item: JsonObject, where: str, received_at: datetime, new_id: Callable[[], str]) -> Command:
    check_depth(item, MAX_DEPTH - ECHO_DEPTH)
    try:
        return read_foreign_form(item, received_at, new_id)
    except msgspec.ValidationError as error:
        _refuse("command", error, where)


def _feedback(item: Any, where: str) -> Feedback:
    feedback = checked(_in_utc(_convert(item, Feedback, where), where), where)
    if feedback.output is not None:
        checked(feedback.output, f"{where}.output")
    check_sequence(feedback.sequence, where)
    if feedback.kind is FeedbackKind.RESULT and feedback.outcome is None:
        raise DecodeError(f"The result at `{where}` has no outcome.", code="no_outcome", path=where)
    if feedback.expected is not None:
        check_number(1, feedback.expected, f"{where}.expected")
    return feedback


def _blob_chunk(item: Any, where: str) -> BlobChunk:
    chunk = checked(_convert(item, BlobChunk, where), where)
    fits = chunk.data is not None and chunk.size is not None and chunk.offset + len(chunk.data) <= chunk.size
    if not fits and chunk.error is None:
        raise DecodeError(
            f"The blob chunk at `{where}` has neither an error nor data within the blob's size.",
            code="invalid_chunk",
            path=where,
        )
    return chunk


def _convert(item: Any, kind: type[_M], where: str) -> _M:
    try:
        return msgspec.convert(item, kind, strict=True)
    except msgspec.ValidationError as error:
        _refuse(kind.__name__.lower(), error, where)


def _refuse(kind: str, error: Exception, where: str) -> NoReturn:
    reason, _, inner = str(error).partition(" - at `$")
    path = where + inner[:MAX_REASON_LENGTH].removesuffix("`")
    raise DecodeError(
        f"This is not a valid {kind} message: {reason[:MAX_REASON_LENGTH]} - at `{path}`.", code="wrong_type", path=path
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
        raise DecodeError(
            f"The time at `{path}` has no time zone; write it as RFC 3339, ending in Z.", code="no_time_zone", path=path
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise DecodeError(
            f"The time at `{path}` is outside the years 1 to 9999 in UTC.", code="out_of_range", path=path
        ) from error


def _items(frame: bytes, limits: FrameLimits) -> Iterator[tuple[str, Any]]:
    """Yield the path and the JSON value of each message."""
    value = parse(frame, limits.frame_bytes, limits.depth)
    if not isinstance(value, list):
        yield "$", value
    elif len(value) > limits.messages:
        raise DecodeError(
            f"The frame has {len(value)} messages; at most {limits.messages} are allowed.", code="too_many_messages"
        )
    else:
        yield from ((f"$[{index}]", item) for index, item in enumerate(value))
