"""Finds secrets in commands and texts, and masks them."""

import re
from functools import cache
from typing import Any

import msgspec

__all__ = [
    "MASK",
    "SECRET",
    "URL_PASSWORD",
    "is_secret_name",
    "mask_shapes",
    "masked_values",
    "secret_names",
]


MASK = "********"
SECRET = msgspec.Meta(extra_json_schema={"writeOnly": True})
"""Marks a parameter whose value is always masked: `token: Annotated[str, SECRET]`."""
URL_PASSWORD = re.compile(r"(://[^/\s:]*:)[^@\s]*@(?:[^/@\s]*@)*")  # URL parsers split at the last @
_KEY_WORDS = r"pass(?:word|wd|phrase)?|secret|token|credential|api[_-]?key|private"
_SECRET_KEY = re.compile(_KEY_WORDS, re.IGNORECASE)
_ASSIGNMENT = re.compile(rf"((?:{_KEY_WORDS})[\w.-]*[\"']?\s*[:=]\s*)\S.*", re.IGNORECASE)
_PEM_KEY = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END|\Z)", re.DOTALL)
_ENROLMENT_TOKEN = re.compile(r"acm1\.[A-Za-z0-9_-]{22,}")


def is_secret_name(name: str) -> bool:
    """Return whether a name suggests that its value is secret, as `db_password` does."""
    return _SECRET_KEY.search(name) is not None


@cache
def secret_names(shape: type) -> frozenset[str]:
    """Return the names of the members of a dataclass that are marked SECRET."""
    _, definitions = msgspec.json.schema_components([shape])
    members = definitions[shape.__name__]["properties"]
    return frozenset(name for name, schema in members.items() if _is_marked(schema))


def _is_marked(schema: Any) -> bool:
    return schema.get("writeOnly") is True or any(_is_marked(part) for part in schema.get("anyOf", ()))


def mask_shapes(text: str) -> str:
    """Return the text with secrets masked by their form: passwords in URLs, PEM keys, tokens, `password = …`."""
    without_keys = _PEM_KEY.sub(rf"\1 {MASK} \2", text)
    without_tokens = _ENROLMENT_TOKEN.sub(f"acm1.{MASK}", without_keys)
    return _ASSIGNMENT.sub(rf"\1{MASK}", URL_PASSWORD.sub(rf"\1{MASK}@", without_tokens))


def masked_values(value: Any, secrets: set[str]) -> Any:
    """Return the JSON value with each text masked that equals one of the secrets."""
    if isinstance(value, dict):
        return {key: masked_values(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(item, secrets) for item in value]
    return MASK if isinstance(value, str) and value in secrets else value
