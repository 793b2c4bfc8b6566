"""The quick way through the parser refuses and returns what the strict one does."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.contract import strict_json
from broker.contract.strict_json import DecodeError, check_depth, parse

MAX_DEPTH = 8
TEXTS = st.text(st.sampled_from('ab"\\\n:é😀'), max_size=4)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
SPOILT = st.tuples(
    VALUES, st.integers(0, 200), st.sampled_from([b'"', b"\\", b"\\ud800", b"{", b",", b"1", b" ", b"\xff"])
)
FRAMES = st.one_of(
    VALUES.map(msgspec.json.encode),
    VALUES.map(lambda value: msgspec.json.format(msgspec.json.encode(value), indent=1)),
    SPOILT.map(lambda spoilt: _inserted(msgspec.json.encode(spoilt[0]), *spoilt[1:])),
    st.lists(st.tuples(TEXTS, VALUES), max_size=4).map(lambda members: _object(members)),
)


def _inserted(frame: bytes, at: int, what: bytes) -> bytes:
    return frame[:at] + what + frame[at:]


def _object(members: list[tuple[str, Any]]) -> bytes:
    """An object in which a key can occur twice."""
    return b"{" + b",".join(msgspec.json.encode(key) + b": " + msgspec.json.encode(it) for key, it in members) + b"}"


def strictly(frame: bytes) -> Any:
    value = strict_json._parse_strictly(frame, MAX_DEPTH)
    check_depth(value, MAX_DEPTH)
    return value


def said(read: Any, frame: bytes) -> object:
    try:
        return repr(read(frame))  # which tells 1 from 1.0 and True
    except DecodeError as error:
        return error.code, str(error)


@settings(max_examples=400, derandomize=True)
@given(FRAMES)
def test_quick_way_agrees_with_the_strict_one(frame: bytes) -> None:
    assert said(lambda data: parse(data, 1 << 16, MAX_DEPTH), frame) == said(strictly, frame)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b'{"a":1,"a":1}', "duplicate_key"),
        (b'{"a":"x","b":{"a":1,"a":"\\n"}}', "duplicate_key"),
        (b"[9223372036854775808]", "integer_out_of_range"),
        (b'{"a":[18446744073709551615]}', "integer_out_of_range"),
        (b'["\\ud800"]', "lone_surrogate"),
        (b"[NaN]", "not_finite"),
        (b"[1e999]", "not_finite"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 9 + b"1" + b"}" * 9, "too_deep"),
        (b'["\xff"]', "not_json"),
    ],
)
def test_what_msgspec_or_the_check_does_not_take_is_refused_by_its_name(frame: bytes, code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse(frame, 1 << 18, MAX_DEPTH)
    assert caught.value.code == code


def test_usual_frames_take_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "_parse_strictly", None)
    assert parse(b'{"id": "a", "n": [1, 2.5, true, null]}', 100, MAX_DEPTH) == {"id": "a", "n": [1, 2.5, True, None]}
    assert parse(b'{"text":"a\\n\\"b\\""}', 100, MAX_DEPTH) == {"text": 'a\n"b"'}
