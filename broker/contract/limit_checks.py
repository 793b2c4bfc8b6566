"""The limits of names, texts, lists and numbers in messages, checked; each refusal is a DecodeError."""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from broker.contract.limits import (
    CHANNEL_OF,
    LISTS,
    MAX_ID_LENGTH,
    MAX_NUMBER,
    MAX_TIMEOUT_S,
    NAMES,
    TEXTS,
    ListLimits,
)
from broker.contract.messages import Feedback, JsonObject, Origin, Output, PendingReversal, SequenceNumber
from broker.contract.strict_json import DecodeError

__all__ = [
    "check_data",
    "check_number",
    "check_sequence",
    "check_timeout",
    "checked",
    "too_many_items",
]


_Limited = TypeVar("_Limited")
_Check = Callable[[Any, str, str], None]


def checked(message: _Limited, where: str) -> _Limited:
    """Return the message if its names, texts and lists are within their limits; raises DecodeError."""
    for name, check in _CHECKS[type(message)]:
        value = getattr(message, name)
        if value is not None:
            check(value, where, name)
    return message


def check_data(data: JsonObject) -> None:
    """Raise DecodeError unless a result may have this many members of data, with names of this length."""
    _check_data(data, "$", "data")


def check_timeout(timeout_s: float | None, path: str) -> None:
    """Raise DecodeError unless these are seconds that a command may take."""
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise DecodeError(
            f"The number of seconds at `{path}` must be greater than 0 and at most {MAX_TIMEOUT_S:g}.",
            code="out_of_range",
            path=path,
        )


def check_sequence(sequence: SequenceNumber | None, where: str) -> None:
    """Raise DecodeError unless epoch and number are within their limits."""
    if sequence is not None:
        check_number(0, sequence.epoch, f"{where}.sequence.epoch")
        check_number(1, sequence.number, f"{where}.sequence.number")


def check_number(minimum: int, number: int | None, path: str) -> None:
    """Raise DecodeError unless the number is at least `minimum` and exact in JSON."""
    if number is not None and not minimum <= number <= MAX_NUMBER:
        raise DecodeError(
            f"The number at `{path}` must be at least {minimum} and at most 2^53 - 1.", code="out_of_range", path=path
        )


def too_many_items(count: int, limit: int, path: str) -> DecodeError:
    """Return the error of a list that is too long."""
    return DecodeError(
        f"There are {count} items at `{path}`; at most {limit} are allowed.", code="too_many_items", path=path
    )


def _check_name(value: str, where: str, name: str) -> None:
    if not (0 < len(value) <= MAX_ID_LENGTH and value.isprintable()):
        path = f"{where}.{name}"
        raise DecodeError(
            f"The text at `{path}` must be 1 to {MAX_ID_LENGTH} printable characters.", code="invalid_name", path=path
        )


def _text_check(limit: int) -> _Check:
    def check(value: str, where: str, name: str) -> None:
        if len(value) > limit:
            raise _text_too_long(len(value), limit, f"{where}.{name}")

    return check


def _list_check(limits: ListLimits) -> _Check:
    def check(value: Collection[Any], where: str, name: str) -> None:
        if not value:
            return
        if len(value) > limits.items:
            raise too_many_items(len(value), limits.items, f"{where}.{name}")
        if (longest := max(map(len, value))) > limits.characters:
            raise _text_too_long(longest, limits.characters, f"{where}.{name}")

    return check


def _text_too_long(length: int, limit: int, path: str) -> DecodeError:
    return DecodeError(
        f"The text at `{path}` has {length} characters; at most {limit} are allowed.", code="text_too_long", path=path
    )


def _checks(kind: type) -> tuple[tuple[str, _Check], ...]:
    names = dict.fromkeys(NAMES.get(kind, ()), _check_name)
    texts = {name: _text_check(limit) for name, limit in TEXTS.get(kind, {}).items()}
    lists = {name: _list_check(limit) for name, limit in LISTS.get(kind, {}).items()}
    return tuple({**names, **texts, **lists}.items())


_CHECKS: Mapping[type, tuple[tuple[str, _Check], ...]] = MappingProxyType(
    {kind: _checks(kind) for kind in (*CHANNEL_OF, Origin, Output, PendingReversal)}
)
_check_data = _list_check(LISTS[Feedback]["data"])
