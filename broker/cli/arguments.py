"""Parameters as users write them on acm's command line, turned into values."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from broker.contract.limits import MAX_DEPTH, MAX_FRAME_BYTES
from broker.contract.messages import JsonObject
from broker.contract.strict_json import DecodeError, parse
from broker.errors import InvalidArgument
from broker.system.text_files import NotText, read_text

__all__ = [
    "check_utf8",
    "keys_on_command_line",
    "read_parameters",
]


def read_parameters(pairs: Iterable[str], document: str | None, *, texts: Collection[str] = frozenset()) -> JsonObject:
    """Return the parameters of KEY=VALUE or KEY=@FILE, which override those of the JSON object (or @FILE) `document`.

    A value that is valid JSON is read as JSON, any other as text; the content of a file, and the value of a parameter
    in `texts`, is always text.
    Raises InvalidArgument.
    """
    given: JsonObject = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        check_utf8("A parameter's name", key)
        if not (key and equals):
            raise InvalidArgument(
                f"{pair[:80]!r} is not KEY=VALUE. Write acm send AGENT TYPE [KEY=VALUE]...: several agents are "
                "separated by commas, and --all and --group take the place of AGENT.",
                code="not_key_value",
            )
        if key in given:
            raise InvalidArgument(f"{key[:80]} is given twice; keep one.", code="given_twice")
        if value.startswith("@"):
            given[key] = _read_text(key, value[1:])
        elif key in texts:
            given[key] = check_utf8(key, value).decode()
        else:
            given[key] = _json_or_text(key, value)
    return {**(_read_document(document) if document is not None else {}), **given}


def keys_on_command_line(pairs: Iterable[str], document: str | None) -> set[str]:
    """Return the parameters whose values are on the command line, not in a file. Raises InvalidArgument."""
    in_document = {} if document is None or document.startswith("@") else _read_document(document)
    split = (pair.partition("=") for pair in pairs)
    return {*in_document, *(key for key, _, value in split if not value.startswith("@"))}


def _read_document(document: str) -> JsonObject:
    try:
        text = _read_text("--parameters", document[1:]) if document.startswith("@") else document
        value = parse(check_utf8("--parameters", text), MAX_FRAME_BYTES, MAX_DEPTH)
    except DecodeError as error:
        raise InvalidArgument(f"--parameters: {error}", code=error.code) from error
    if not isinstance(value, dict):
        raise InvalidArgument(
            '--parameters must be a JSON object, such as {"section": "service"}.', code="not_a_json_object"
        )
    return value


def _read_text(key: str, path: str) -> str:
    try:
        return read_text(Path(path))
    except OSError as error:
        raise InvalidArgument(f"{key}: cannot read {path}: {error.strerror}.", code="unreadable_file") from error
    except NotText as error:
        raise InvalidArgument(f"{key}: {path} cannot be read: {error}.", code="not_utf8") from error


def check_utf8(what: str, argument: str) -> bytes:
    """Return the argument's bytes; Python keeps bytes that are not UTF-8 as lone surrogates (PEP 383).

    Raises InvalidArgument, with `what` as the subject of its sentence.
    """
    try:
        return argument.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what} is not UTF-8 text.", code="not_utf8") from error


def _json_or_text(key: str, value: str) -> Any:
    try:
        return parse(check_utf8(key, value), MAX_FRAME_BYTES, MAX_DEPTH)
    except DecodeError as error:
        if error.code == "not_json":
            return value
        raise InvalidArgument(f"{key[:80]}: {error} For a text, write {key[:80]}='\"…\"'.", code=error.code) from error
