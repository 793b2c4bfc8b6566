"""Finds secrets in commands by their names, and masks them."""

import re
from functools import cache
from typing import Any
from urllib.parse import unquote_plus

import msgspec

__all__ = [
    "MASK",
    "SECRET",
    "has_url_password",
    "is_secret_name",
    "mask_url_passwords",
    "masked_values",
    "secret_names",
]


MASK = "********"
SECRET = msgspec.Meta(extra_json_schema={"writeOnly": True})
"""Marks a parameter whose value is always masked: `token: Annotated[str, SECRET]`."""
# Within a text, where a URL ends at the first blank.
_URL_PASSWORD = re.compile(r"(://[^/\s:]*:)[^@\s]{0,2000}@(?:[^/@\s]*@)*")  # URL parsers split at the last @
_URL_PARAMETER = re.compile(r"(?P<before>[?&](?P<name>[^\s?&=#]{1,200})=)(?P<value>[^\s&\"'<>]+)")
# A whole URL, in which a blank may be a part of the password.
_WHOLE_URL_PASSWORD = re.compile(r"[^/]*://[^/:]*:[^@]*@", re.DOTALL)
_WHOLE_URL_PARAMETER = re.compile(r"[?&](?P<name>[^?&=#]{1,200})=(?=[^&#])")
_SIGNATURES = ("sig", "signature", "x-amz-signature", "x-goog-signature")  # which are enough to use the URL
_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SECRET_NAME = re.compile(
    r"password|passwd|passphrase|passcode|secret|token|credential|private|authorization|accesssignature"
    r"|passwort|kennwort|contrase[nñ]a|mot[ _-]?de[ _-]?passe|pswd|(?<![a-z])jwt(?![a-z])|(?<![a-z])bearer$"
    r"|(?<!by)(?<!com)(?<!sur)(?<!tres)pass(?![a-z])|passw(?![a-z])|pwd?(?![a-z])|psk(?![a-z])"
    r"|(?:access|account|aes|api|auth|cipher|encryption|hash|hmac|license|master|session|shared|signing|ssh|storage|"
    r"webhook|wpa)[ _-]?keys?(?![a-z])|priv[_-]?key(?![a-z])|access_signature"
)


def is_secret_name(name: str) -> bool:
    """Return whether a name suggests that its value is secret, as `db_password` does."""
    return _SECRET_NAME.search(_WORD_BEGINS.sub("_", name).lower()) is not None


def has_url_password(url: str) -> bool:
    """Return whether a URL contains a password: before its host, or in its query under the name of a secret."""
    if _WHOLE_URL_PASSWORD.match(url):
        return True
    return any(is_secret_name(unquote_plus(name)) for name in _WHOLE_URL_PARAMETER.findall(url))


def mask_url_passwords(text: str) -> str:
    """Return the text with the passwords in its URLs masked."""
    return _URL_PARAMETER.sub(_mask_parameter, _URL_PASSWORD.sub(rf"\1{MASK}@", text))


def _mask_parameter(found: re.Match[str]) -> str:
    name = unquote_plus(found["name"])
    return f"{found['before']}{MASK}" if is_secret_name(name) or name.lower() in _SIGNATURES else found[0]


@cache
def secret_names(shape: type) -> frozenset[str]:
    """Return the names of the members of a dataclass that are marked SECRET."""
    _, definitions = msgspec.json.schema_components([shape])
    members = definitions[shape.__name__]["properties"]
    return frozenset(name for name, schema in members.items() if _is_marked(schema))


def _is_marked(schema: Any) -> bool:
    return schema.get("writeOnly") is True or any(_is_marked(part) for part in schema.get("anyOf", ()))


def masked_values(value: Any, secrets: set[str]) -> Any:
    """Return the JSON value with each text masked that equals one of the secrets."""
    if isinstance(value, dict):
        return {key: masked_values(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(item, secrets) for item in value]
    return MASK if isinstance(value, str) and value in secrets else value
