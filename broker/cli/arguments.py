"""What users write on acm's command line, turned into values."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from broker.contract.messages import JsonObject
from broker.durations import _DURATION
from broker.errors import InvalidArgument

__all__ = [
    "read_parameters",
    "with_default_wait",
]


_DEFAULT_WAIT = "60s"


def read_parameters(pairs: Iterable[str], document: str | None) -> JsonObject:
    """Return the parameters given as KEY=VALUE or KEY=@FILE, over those of the JSON object (or @FILE) `document`.

    A value that is JSON is taken as such, any other as text; what is in a file is always text. Raises InvalidArgument.
    """
    parameters = _read_document(document) if document is not None else {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise InvalidArgument(f"{pair[:80]!r} is not KEY=VALUE.")
        parameters[key] = _read_text(key, value[1:]) if value.startswith("@") else _json_or_text(value)
    return parameters


def with_default_wait(arguments: list[str]) -> list[str]:
    """Give `--wait` its default where no duration follows: typer knows no option with an optional value."""
    completed: list[str] = []
    for index, word in enumerate(arguments):
        if word == "--":
            return completed + arguments[index:]
        bare = word == "--wait" and not _DURATION.fullmatch((arguments[index + 1 :] or [""])[0])
        completed.append(f"--wait={_DEFAULT_WAIT}" if bare else word)
    return completed


def _read_document(document: str) -> JsonObject:
    try:
        text = Path(document[1:]).read_text(encoding="utf-8") if document.startswith("@") else document
        value = json.loads(text)
    except OSError as error:
        raise InvalidArgument(f"--parameters: {document[1:]} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"--parameters is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidArgument('--parameters must be a JSON object, as in {"section": "service"}.')
    return value


def _read_text(key: str, path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8")  # as it is: no newline is translated
    except OSError as error:
        raise InvalidArgument(f"{key}: {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{key}: {path} is not text in UTF-8.") from error


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
