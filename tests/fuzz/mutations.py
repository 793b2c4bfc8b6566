"""Mutations of valid input, deterministic for a random source: what the fuzzer does without atheris."""

from collections.abc import Sequence
from random import Random

__all__ = ["mutated"]

_MAX_BYTES = 1 << 16
_TOKENS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\\",
        b"\\ud800",
        b"\\u0000",
        b"\x00",
        b"\xff",
        b"\n",
        b"null",
        b"true",
    ),
    *(b"-1", b"0", b"1.5", b"1e400", b"9007199254740993", b"9223372036854775807", b"18446744073709551616", b"NaN"),
    *(b'"id"', b'"kind"', b'"result"', b'"command"', b'"action"', b'"parameters"', b'"0001-01-01T00:00:00+14:00"'),
    *(b"\xe2\x80\xae", b"\x1b[31m", b"../", b"/etc/passwd", b"[" * 40, b"]" * 40, b"x" * 300),
)


def mutated(source: Random, corpus: Sequence[bytes]) -> bytes:
    """Return one input of the corpus with one to five changes."""
    data = source.choice(corpus)
    for _ in range(source.randint(1, 5)):
        data = source.choice(_CHANGES)(source, data, corpus)[:_MAX_BYTES]
    return data


def _span(source: Random, data: bytes) -> tuple[int, int]:
    first = source.randrange(len(data) + 1)
    return first, min(len(data), first + source.choice((1, 1, 2, 8, 64, 512, 4096)))


def _flip(source: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    if not data:
        return data
    place = source.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << source.randrange(8))]) + data[place + 1 :]


def _set(source: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    first, _ = _span(source, data)
    return data[:first] + bytes([source.randrange(256)]) + data[first + 1 :]


def _cut_out(source: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    first, end = _span(source, data)
    return data[:first] + data[end:]


def _cut_off(source: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    return data[: _span(source, data)[0]]


def _repeat(source: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    first, end = _span(source, data)
    return data[:end] + data[first:end] * source.choice((1, 2, 50)) + data[end:]


def _splice(source: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = source.choice(corpus)
    return data[: _span(source, data)[0]] + other[_span(source, other)[0] :]


def _insert(source: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    first, end = _span(source, data)
    return data[:first] + source.choice(_TOKENS) + data[source.choice((first, end)) :]


_CHANGES = (_flip, _set, _cut_out, _cut_off, _repeat, _splice, _insert, _insert)
