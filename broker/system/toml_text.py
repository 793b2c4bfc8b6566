"""TOML from others: tomllib needs memory and time by the square of the length of a dotted key."""

import re
import tomllib
from typing import Any

__all__ = [
    "load_toml",
]


_MAX_PARTS = 100
_STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\"]|"(?!""))*+(?:""")?'
    r"|'''(?:[^']|'(?!''))*+(?:''')?"
    r'|"(?:\\.|[^"\\\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+",
    re.DOTALL,
)
_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{_MAX_PARTS}}}")


def load_toml(text: str) -> dict[str, Any]:
    """Return the values of a TOML text; raises ValueError, also for keys of more than 100 parts, and RecursionError."""
    if _LONG_KEY.search(_STRING_OR_COMMENT.sub("s", text)):
        raise ValueError(f"a key has more than {_MAX_PARTS} parts")
    return tomllib.loads(text)
