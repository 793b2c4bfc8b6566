"""Parameters as users write them on acm's command line, turned into values."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from broker.contract.messages import JsonObject
from broker.errors import InvalidArgument

__all__ = [
    "keys_on_command_line",
    "read_parameters",
]


def read_parameters(pairs: Iterable[str], document: str | None) -> JsonObject:
    """Return the parameters of KEY=VALUE or KEY=@FILE, which override those of the JSON object (or @FILE) `document`.

    A value that is valid JSON is read as JSON, any other as text; the content of a file is always text.
    Raises InvalidArgument.
    """
    parameters = _read_document(document) if document is not None else {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise InvalidArgument(f"{pair[:80]!r} is not KEY=VALUE.", code="not_key_value")
        parameters[key] = _read_text(key, value[1:]) if value.startswith("@") else _json_or_text(value)
    return parameters


def keys_on_command_line(pairs: Iterable[str], document: str | None) -> set[str]:
    """Return the parameters whose values are on the command line, not in a file. Raises InvalidArgument."""
    in_document = {} if document is None or document.startswith("@") else _read_document(document)
    split = (pair.partition("=") for pair in pairs)
    return {*in_document, *(key for key, _, value in split if not value.startswith("@"))}


def _read_document(document: str) -> JsonObject:
    try:
        text = Path(document[1:]).read_text(encoding="utf-8") if document.startswith("@") else document
        value = json.loads(text)
    except OSError as error:
        message = f"--parameters: cannot read {document[1:]}: {error.strerror}."
        raise InvalidArgument(message, code="unreadable_file") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"--parameters is not JSON: {error}.", code="not_json") from error
    if not isinstance(value, dict):
        raise InvalidArgument(
            '--parameters must be a JSON object, such as {"section": "service"}.', code="not_a_json_object"
        )
    return value


def _read_text(key: str, path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8")  # line ends are kept
    except OSError as error:
        raise InvalidArgument(f"{key}: cannot read {path}: {error.strerror}.", code="unreadable_file") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{key}: {path} is not UTF-8 text.", code="not_utf8") from error


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
