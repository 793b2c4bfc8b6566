"""Frames that the codec decodes, and frames that it refuses with a DecodeError."""

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.contract.codec import (
    MAX_FRAME_BYTES,
    DecodeError,
    decode_acks,
    decode_blob_chunks,
    decode_blob_requests,
    decode_commands,
    decode_controls,
    decode_feedbacks,
    decode_status,
    encode,
    frames,
    to_json,
)
from broker.contract.limits import LIMITS, LISTS, MAX_DEPTH, NAMES, TEXTS
from broker.contract.messages import (
    MAX_BLOB_CHUNK_BYTES,
    Ack,
    BlobChunk,
    BlobRequest,
    Command,
    Control,
    Feedback,
    Origin,
    Output,
    PendingReversal,
    SequenceNumber,
    Status,
)
from broker.contract.states import FeedbackKind, Outcome
from broker.contract.topics import Channel
from tests.support.errors import raises_code

RECEIVED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def decode(frame: bytes, max_bytes: int | None = MAX_FRAME_BYTES) -> list[Command]:
    return decode_commands(frame, received_at=RECEIVED_AT, new_id=lambda: "new-id", max_bytes=max_bytes)


def body(**changes: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "type": "restart-agent",
        "parameters": {},
        "origin": {"name": "node01", "module": "server"},
        "created_at": "2026-03-01T12:00:00Z",
        **changes,
    }


def frame(**changes: Any) -> bytes:
    return json.dumps(body(**changes)).encode()


@contextlib.contextmanager
def refused(code: str, path: str = "$") -> Iterator[None]:
    """Expect a DecodeError with this code, about this part of the frame."""
    with raises_code(DecodeError, code) as caught:
        yield
    assert isinstance(caught.value, DecodeError)
    assert caught.value.path == path


def with_parameter(literal: bytes) -> bytes:
    return frame(parameters={"p": 0}).replace(b'"p": 0', b'"p": ' + literal)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


DECODERS: list[Callable[[bytes], Any]] = [decode, decode_controls, decode_acks, decode_feedbacks, decode_status]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
OBJECT = st.dictionaries(st.text(), JSON, max_size=4)
NAME = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=128)
TIME = st.datetimes(timezones=st.just(UTC))
COMMAND = st.builds(
    Command,
    id=NAME,
    type=NAME,
    parameters=OBJECT,
    origin=st.builds(Origin, name=st.text(), module=st.text()),
    created_at=TIME,
    expires_at=st.none() | TIME,
    timeout_s=st.none() | st.floats(min_value=1e-300, max_value=604800.0),
    sequence=st.none() | st.builds(SequenceNumber, epoch=st.integers(0, 2**31), number=st.integers(1, 2**53 - 1)),
    original=st.none() | OBJECT,
    notes=st.lists(st.text(), max_size=3).map(tuple),
)
COMMAND_MEMBERS = "id type parameters origin created_at expires_at timeout_s sequence command action document_id"
OTHER_MEMBERS = "args target status user source kind agent digest command_id name module epoch number"
MEMBER = st.sampled_from([*COMMAND_MEMBERS.split(), *OTHER_MEMBERS.split()])
NEAR_MISS = st.recursive(
    JSON | st.sampled_from(["restart", "cancel", "result", "2026-03-01T12:00:00Z", "0001-01-01T00:00:00+14:00"]),
    lambda inner: st.dictionaries(MEMBER, inner, max_size=10) | st.lists(inner, max_size=3),
    max_leaves=20,
)


@given(st.lists(COMMAND, max_size=3))
def test_decoded_commands_equal_the_encoded_ones(commands: list[Command]) -> None:
    assert decode(encode(commands)) == commands


@pytest.mark.parametrize("decoder", DECODERS)
@given(st.binary() | st.text().map(str.encode) | NEAR_MISS.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_value_or_a_decode_error(decoder: Callable[[bytes], Any], data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decoder(data)


@given(MEMBER, NEAR_MISS)
def test_command_with_any_changed_member_gives_a_value_or_a_decode_error(name: str, value: Any) -> None:
    with contextlib.suppress(DecodeError):
        decode(frame(**{name: value}))


def test_one_message_is_an_object_and_several_are_an_array() -> None:
    ack = Ack("c1", "d1")
    assert encode([ack]) == b'{"command_id":"c1","digest":"d1"}'
    assert decode_acks(encode([ack, ack])) == [ack, ack]
    assert decode_acks(encode([])) == []


@pytest.mark.parametrize(
    ("bad", "code", "path"),
    [
        (b"", "not_json", "$"),
        (b"{", "not_json", "$"),
        (b"\xff{}", "not_json", "$"),
        (b"\xef\xbb\xbf{}", "not_json", "$"),
        (b'"text"', "wrong_type", "$"),
        (b"null", "wrong_type", "$"),
        (b"[1]", "wrong_type", "$[0]"),
        (frame().replace(b'"id": "c1"', b'"id": "c1", "id": "c2"'), "duplicate_key", "$"),
        (with_parameter(b"NaN"), "not_finite", "$"),
        (with_parameter(b"-Infinity"), "not_finite", "$"),
        (with_parameter(b"1e400"), "not_finite", "$"),
        (with_parameter(b"9223372036854775808"), "integer_out_of_range", "$"),
        (with_parameter(b"-9223372036854775809"), "integer_out_of_range", "$"),
        (with_parameter(b"1" * 5000), "integer_out_of_range", "$"),
        (with_parameter(b'"\\ud800"'), "lone_surrogate", "$"),
        (with_parameter(b'{"\\uDC00": 1}'), "lone_surrogate", "$"),
        (with_parameter(b"\xed\xa0\x80"), "not_json", "$"),
        (with_parameter(b"[" * 100_000 + b"]" * 100_000), "too_deep", "$"),
        (frame(id=1), "wrong_type", "$.id"),
        (frame(id=""), "invalid_name", "$.id"),
        (frame(id="x" * 129), "invalid_name", "$.id"),
        (frame(id="a\nb"), "invalid_name", "$.id"),
        (frame(type="\u0000"), "invalid_name", "$.type"),
        (frame(parameters=[]), "wrong_type", "$.parameters"),
        (frame(origin={"name": "n"}), "wrong_type", "$.origin"),
        (frame(timeout_s=True), "wrong_type", "$.timeout_s"),
        (frame(timeout_s="3"), "wrong_type", "$.timeout_s"),
        (frame(timeout_s=0), "out_of_range", "$.timeout_s"),
        (frame(timeout_s=-1.5), "out_of_range", "$.timeout_s"),
        (frame(sequence={"epoch": 1, "number": 0}), "out_of_range", "$.sequence.number"),
        (frame(sequence={"epoch": -1, "number": 1}), "out_of_range", "$.sequence.epoch"),
        (frame(sequence={"epoch": 1, "number": 1.5}), "wrong_type", "$.sequence.number"),
        (frame(created_at="2026-03-01T12:00:00"), "no_time_zone", "$.created_at"),
        (frame(expires_at="2026-03-01T12:00:00"), "no_time_zone", "$.expires_at"),
        (frame(expires_at="0001-01-01T00:00:00+14:00"), "out_of_range", "$.expires_at"),
        (frame(created_at=1700000000), "wrong_type", "$.created_at"),
    ],
)
def test_bytes_that_are_not_a_command_are_refused_with_code_and_path(bad: bytes, code: str, path: str) -> None:
    with refused(code, path):
        decode(bad)


def test_refusal_names_the_message_in_a_batch() -> None:
    with refused("wrong_type", "$[1].id"):
        decode(json.dumps([body(), body(id=7)]).encode())


def test_error_sentence_is_bounded() -> None:
    with pytest.raises(DecodeError) as refusal:
        decode_controls(json.dumps({"action": "x" * 10_000, "command_id": "c1"}).encode())
    assert len(str(refusal.value)) < 400


def test_size_is_checked_before_parsing() -> None:
    largest = frame().ljust(MAX_FRAME_BYTES)
    assert len(decode(largest)) == 1
    with refused("frame_too_large"):
        decode(b"{" + b" " * MAX_FRAME_BYTES)


def test_store_can_read_commands_longer_than_a_frame() -> None:
    commands = decode(json.dumps({"command": "restart", "parameters": {"data": "x" * 200_000}}).encode())
    stored = encode(commands)
    assert len(stored) > MAX_FRAME_BYTES
    assert decode(stored, max_bytes=None) == commands


def test_depth_of_a_command_is_limited() -> None:
    assert decode(frame(parameters={"p": nested(MAX_DEPTH - 2)}))
    with refused("too_deep"):
        decode(frame(parameters={"p": nested(MAX_DEPTH - 1)}))


def test_many_shallow_values_do_not_count_as_depth() -> None:
    assert decode(frame(parameters={"p": [[] for _ in range(MAX_DEPTH * 2)]}))


def test_deepest_command_can_be_stored_and_echoed(feedback: Callable[..., Feedback]) -> None:
    seed = {"command": "restart", "parameters": {"p": nested(MAX_DEPTH - 4)}}
    (command,) = decode(json.dumps(seed).encode())
    assert decode(encode([command])) == [command]
    with refused("too_deep"):
        decode(json.dumps(seed | {"parameters": {"p": nested(MAX_DEPTH - 3)}}).encode())
    echo = feedback(command=body(parameters={"p": nested(MAX_DEPTH - 2)}))
    assert decode_feedbacks(encode([echo, echo])) == [echo, echo]


@pytest.fixture
def feedback() -> Callable[..., Feedback]:
    def make(**changes: Any) -> Feedback:
        known = {"agent": "a", "store_generation": "g", "incarnation": "i", "status": "completed", "message": "m"}
        return Feedback(kind=FeedbackKind.RESULT, **(known | {"outcome": Outcome.SUCCESS} | changes))

    return make


@pytest.mark.parametrize(
    ("changes", "code", "path"),
    [
        ({"command_id": ""}, "invalid_name", "$.command_id"),
        ({"expected": 0}, "out_of_range", "$.expected"),
        ({"sequence": {"epoch": 1, "number": 0}}, "out_of_range", "$.sequence.number"),
        ({"finished_at": "2026-03-01T00:00:00"}, "no_time_zone", "$.finished_at"),
        ({"kind": "other"}, "wrong_type", "$.kind"),
        ({"outcome": None}, "no_outcome", "$"),
    ],
)
def test_invalid_feedback_is_refused(
    feedback: Callable[..., Feedback], changes: dict[str, Any], code: str, path: str
) -> None:
    with refused(code, path):
        decode_feedbacks(json.dumps(to_json(feedback()) | changes).encode())


def test_times_are_converted_to_utc() -> None:
    (command,) = decode(frame(created_at="2026-03-01T14:00:00+02:00"))
    assert command.created_at == datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert command.created_at.tzinfo is UTC


def test_unknown_fields_of_a_command_are_ignored_and_named() -> None:
    (command,) = decode(frame(zebra=1, x=None, notes=["first"]))
    assert command.notes == ("first", "unknown field 'x' was ignored", "unknown field 'zebra' was ignored")


def test_at_most_16_unknown_fields_are_named() -> None:
    (command,) = decode(frame(**{f"x{number:03}": 0 for number in range(100)}))
    assert len(command.notes) == 17
    assert command.notes[-1] == "84 more unknown fields were ignored"


def test_unknown_fields_of_controls_and_acks_are_ignored() -> None:
    (control,) = decode_controls(b'{"action":"cancel","command_id":"c1","x":1}')
    assert control.command_id == "c1"
    assert decode_acks(b'{"command_id":"c1","digest":"d","x":1}') == [Ack("c1", "d")]


@pytest.mark.parametrize("decoder", [decode_controls, decode_acks])
def test_command_ids_of_controls_and_acks_are_checked(decoder: Callable[[bytes], Any]) -> None:
    with refused("invalid_name", "$.command_id"):
        decoder(b'{"action":"cancel","digest":"d","command_id":"a\\u0007"}')


def test_status_has_no_negative_counts_and_is_not_in_an_array() -> None:
    status = {"agent": "a", "online": True, "version": "1", "incarnation": "i", "boot_id": "b", "store_generation": "g"}
    assert decode_status(json.dumps(status).encode()).queue_depth == 0
    with refused("out_of_range", "$.queue_depth"):
        decode_status(json.dumps({**status, "queue_depth": -1}).encode())
    with refused("wrong_type"):
        decode_status(json.dumps([status]).encode())


@pytest.mark.parametrize(
    "members",
    [
        '"offset": 0',
        '"offset": 0, "size": 1, "data": "AAAA"',
        '"offset": 0, "size": 9, "data": "A!=="',
        '"offset": 0, "size": 9, "data": ""',
        '"offset": -1, "size": 9, "data": "AAAA"',
        '"offset": 0, "data": "AAAA"',
    ],
)
def test_blob_chunk_without_error_and_without_fitting_data_is_refused(members: str) -> None:
    with pytest.raises(DecodeError):
        decode_blob_chunks(f'{{"name": "{"a" * 64}", {members}}}'.encode())


def test_largest_blob_chunk_fits_into_a_frame() -> None:
    chunk = BlobChunk("a" * 64, 2**40, 2**41, b"\xff" * MAX_BLOB_CHUNK_BYTES)
    frame = encode([chunk])
    assert len(frame) <= MAX_FRAME_BYTES
    assert decode_blob_chunks(frame) == [chunk]


@pytest.mark.parametrize(("name", "offset", "length"), [("a" * 63, 0, 1), ("a" * 64, -1, 1), ("a" * 64, 0, 1 << 21)])
def test_blob_request_out_of_bounds_is_refused(name: str, offset: int, length: int) -> None:
    with pytest.raises(DecodeError):
        decode_blob_requests(encode([BlobRequest(name, offset, length)]))


STATUS = {"agent": "a", "online": True, "version": "1", "incarnation": "i", "boot_id": "b", "store_generation": "g"}
REVERSAL = {"script": "s", "keys": ["k"], "command_id": "c", "state": "waiting", "reverses_at": "2026-03-01T12:00:00Z"}
FEEDBACK = {
    "kind": "result",
    "agent": "a",
    "store_generation": "g",
    "incarnation": "i",
    "status": "completed",
    "message": "m",
    "command_id": "c",
    "outcome": "success",
    "digest": "d",
}


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


TOO_MUCH: list[tuple[Callable[[bytes], Any], dict[str, Any], str]] = [
    *((decode, body(), name) for name in NAMES[Command]),
    *((decode_controls, {"action": "cancel", "command_id": "c"}, name) for name in NAMES[Control]),
    *((decode_acks, {"command_id": "c", "digest": "d"}, name) for name in NAMES[Ack]),
    *((decode_feedbacks, FEEDBACK, name) for name in NAMES[Feedback]),
    *((decode_status, STATUS, name) for name in NAMES[Status]),
]


@pytest.mark.parametrize(("decoder", "base", "name"), TOO_MUCH)
@pytest.mark.parametrize("bad", ["", "x" * 129, "a\u001b[31m", "a\u202eb"])
def test_names_are_short_and_printable_in_every_message(
    decoder: Callable[[bytes], Any], base: dict[str, Any], name: str, bad: str
) -> None:
    decoder(as_bytes(base))
    with refused("invalid_name", f"$.{name}"):
        decoder(as_bytes(base | {name: bad}))


TEXT_AT = {
    Origin: (decode, lambda name, text: body(origin={"name": "n", "module": "m"} | {name: text})),
    Feedback: (decode_feedbacks, lambda name, text: FEEDBACK | {name: text}),
    Output: (decode_feedbacks, lambda name, text: FEEDBACK | {"output": {name: text}}),
    Status: (decode_status, lambda name, text: STATUS | {name: text}),
    BlobChunk: (decode_blob_chunks, lambda name, text: {"name": "a" * 64, "offset": 0, name: text}),
}


TEXT_PATH = {Origin: "$.origin", Output: "$.output"}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, texts in TEXTS.items() for name in texts])
def test_text_longer_than_its_limit_is_refused(kind: type, name: str) -> None:
    decoder, with_text = TEXT_AT[kind]
    decoder(as_bytes(with_text(name, "x" * TEXTS[kind][name])))
    with refused("text_too_long", TEXT_PATH.get(kind, "$") + f".{name}"):
        decoder(as_bytes(with_text(name, "x" * (TEXTS[kind][name] + 1))))


LIST_AT = {
    Command: (decode, lambda name, items: body(**{name: items})),
    Feedback: (decode_feedbacks, lambda name, items: FEEDBACK | {name: items}),
    Status: (decode_status, lambda name, items: STATUS | {name: items}),
    PendingReversal: (decode_status, lambda name, items: STATUS | {"pending_reversals": [REVERSAL | {name: items}]}),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, lists in LISTS.items() for name in lists])
def test_list_with_too_many_items_or_characters_is_refused(kind: type, name: str) -> None:
    decoder, with_list = LIST_AT[kind]
    most = LISTS[kind][name]
    is_object = name in ("parameters", "data", "service")

    def frame_with(items: list[str]) -> bytes:
        return as_bytes(with_list(name, dict.fromkeys(items, 1) if is_object else items))

    decoder(frame_with([f"{number}" for number in range(most.items)]))
    decoder(frame_with(["x" * most.characters]))
    path = f"$.pending_reversals[0].{name}" if kind is PendingReversal else f"$.{name}"
    with refused("too_many_items", path):
        decoder(frame_with([f"{number}" for number in range(most.items + 1)]))
    with refused("text_too_long", path):
        decoder(frame_with(["x" * (most.characters + 1)]))


FRAME_OF: dict[Channel, tuple[Callable[[bytes], Any], dict[str, Any]]] = {
    Channel.COMMAND: (decode, body()),
    Channel.CONTROL: (decode_controls, {"action": "cancel", "command_id": "c"}),
    Channel.ACK: (decode_acks, {"command_id": "c", "digest": "d"}),
    Channel.FEEDBACK: (decode_feedbacks, FEEDBACK),
    Channel.STATUS: (decode_status, STATUS),
    Channel.BLOB_REQUEST: (decode_blob_requests, {"name": "a" * 64, "offset": 0, "length": 1}),
    Channel.BLOB_CHUNK: (decode_blob_chunks, {"name": "a" * 64, "offset": 0, "error": "No."}),
}


@pytest.mark.parametrize("channel", Channel)
def test_frame_beyond_the_limits_of_its_channel_is_refused(channel: Channel) -> None:
    decoder, message = FRAME_OF[channel]
    most = LIMITS[channel]
    decoder(as_bytes(message).ljust(most.frame_bytes))
    with refused("frame_too_large"):
        decoder(as_bytes(message).ljust(most.frame_bytes + 1))
    decoder(as_bytes(message | {"x": nested(most.depth - 1)}))
    with refused("too_deep"):
        decoder(as_bytes(message | {"x": nested(most.depth)}))
    if channel is not Channel.STATUS:
        assert len(decoder(as_bytes([message] * most.messages).replace(b" ", b""))) == most.messages
        with refused("too_many_messages"):
            decoder(as_bytes([message] * (most.messages + 1)).replace(b" ", b""))


def test_status_with_more_than_50_reversals_is_refused() -> None:
    assert len(decode_status(as_bytes(STATUS | {"pending_reversals": [REVERSAL] * 50})).pending_reversals) == 50
    with refused("too_many_items", "$.pending_reversals"):
        decode_status(as_bytes(STATUS | {"pending_reversals": [REVERSAL] * 51}))


@pytest.mark.parametrize("name", ["epoch", "closed_epoch", "last_sequence", "queue_depth", "results_waiting"])
def test_count_beyond_2_to_the_53_is_refused(name: str) -> None:
    decode_status(as_bytes(STATUS | {name: 2**53 - 1}))
    for number in (2**53, 2**63 - 1, -1):
        with refused("out_of_range", f"$.{name}"):
            decode_status(as_bytes(STATUS | {name: number}))


def test_frames_have_at_most_the_messages_of_their_channel() -> None:
    acks = [Ack(f"c{number}", "d" * 64) for number in range(1201)]
    batches = [decode_acks(frame) for frame in frames(acks)]
    assert [ack for batch in batches for ack in batch] == acks
